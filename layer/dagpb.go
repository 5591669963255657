package layer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// Types of UnixFS nodes (unixfs.proto, Data.DataType).
const (
	unixfsDirectory = 1
	unixfsSymlink   = 4
	unixfsShard     = 5
)

// Tags of dag-pb (PBNode, PBLink) and of UnixFS's Data.
const (
	tagNodeData  = 1<<3 | 2
	tagNodeLinks = 2<<3 | 2
	tagLinkHash  = 1<<3 | 2
	tagLinkName  = 2<<3 | 2
	tagLinkTsize = 3<<3 | 0
	tagDataType  = 1<<3 | 0
	tagDataData  = 2<<3 | 2
	tagDataSize  = 3<<3 | 0
)

// A link is a named link of a dag-pb node.
type link struct {
	name  string
	cid   cid.Cid
	tsize uint64 // bytes of all blocks below
}

// directoryNode encodes a UnixFS directory that is not sharded. The links must be sorted
// by the bytes of their names.
func directoryNode(links []link) []byte {
	var out, buf []byte
	for _, l := range links {
		buf = protowire.AppendVarint(buf[:0], tagLinkHash)
		buf = protowire.AppendBytes(buf, l.cid.Bytes())
		buf = protowire.AppendVarint(buf, tagLinkName)
		buf = protowire.AppendString(buf, l.name)
		buf = protowire.AppendVarint(buf, tagLinkTsize)
		buf = protowire.AppendVarint(buf, l.tsize)
		out = protowire.AppendVarint(out, tagNodeLinks)
		out = protowire.AppendBytes(out, buf)
	}
	return append(out, tagNodeData, 2, tagDataType, unixfsDirectory)
}

// linkSize is the size in bytes of a link in directoryNode's output.
func linkSize(l link) int {
	n := 1 + protowire.SizeBytes(l.cid.ByteLen()) + 1 + protowire.SizeBytes(len(l.name)) + 1 + protowire.SizeVarint(l.tsize)
	return 1 + protowire.SizeBytes(n)
}

// symlinkNode encodes a UnixFS symlink.
func symlinkNode(target string) []byte {
	var data []byte
	data = append(data, tagDataType, unixfsSymlink, tagDataData)
	data = protowire.AppendString(data, target)
	return protowire.AppendBytes([]byte{tagNodeData}, data)
}

var errDagPB = errors.New("malformed dag-pb")

// parseNode reads a dag-pb node: its links in order, and its UnixFS data. It takes links
// and data in any order; who needs the one form encodes again and compares.
func parseNode(s string) (links []link, data string, err error) {
	r := cursor{s: s}
	for r.more() {
		switch r.uvarint() {
		case tagNodeLinks:
			l, err := parseLink(r.bytes())
			if err != nil {
				return nil, "", err
			}
			links = append(links, l)
		case tagNodeData:
			data = r.bytes()
		default:
			r.bad = true
		}
	}
	if r.bad {
		return nil, "", fmt.Errorf("%w: near byte %d", errDagPB, r.off)
	}
	return links, data, nil
}

func parseLink(s string) (link, error) {
	var l link
	r := cursor{s: s}
	for r.more() {
		switch r.uvarint() {
		case tagLinkHash:
			c, err := cid.Cast([]byte(r.bytes()))
			if err != nil {
				return link{}, fmt.Errorf("%w: link: %w", errDagPB, err)
			}
			l.cid = c
		case tagLinkName:
			l.name = r.maybeEmpty()
		case tagLinkTsize:
			l.tsize = r.uvarint()
		default:
			r.bad = true
		}
	}
	if p := l.cid.Prefix(); r.bad || !l.cid.Defined() || p.Version != 1 || p.MhType != mh.SHA2_256 || p.MhLength != sumSize {
		return link{}, fmt.Errorf("%w: link %q is not a CIDv1 with sha2-256", errDagPB, l.name)
	}
	return l, nil
}

// maybeEmpty reads a length and as many bytes.
func (r *cursor) maybeEmpty() string {
	if r.off < len(r.s) && r.s[r.off] == 0 {
		r.off++
		return ""
	}
	return r.bytes()
}

// The links of a layer root, in their order.
const (
	linkIndex    = "index"
	linkRootfs   = "rootfs"
	linkShadowed = "shadowed"
	linkTarSplit = "tar-split"
)

// ParseRoot reads a layer root, which must have the bytes of its CID, and nothing that it
// links to: the Layer has no Index.
func ParseRoot(root ipfs.Block) (*Layer, error) { return parseRoot(root) }

// parseRoot reads a layer root in its only form.
func parseRoot(root ipfs.Block) (*Layer, error) {
	if len(root.Data) > MaxRootBlock {
		return nil, fmt.Errorf("layer root %s: %w (%d bytes)", root.Cid, ErrTooLarge, MaxRootBlock)
	}
	links, _, err := parseNode(string(root.Data))
	if err != nil {
		return nil, fmt.Errorf("layer root %s: %w: %w", root.Cid, ErrRoot, err)
	}
	l := &Layer{Root: root}
	for _, k := range links {
		dag, ok := k.cid.Type() == cid.DagProtobuf, true
		switch k.name {
		case linkRootfs:
			l.Rootfs, ok = k.cid, dag
		case linkShadowed:
			l.Shadowed, ok = k.cid, dag
		case linkIndex:
			l.IndexCid, ok = k.cid, dag || k.cid.Type() == cid.Raw
		case linkTarSplit:
			l.TarSplit, ok = k.cid, dag || k.cid.Type() == cid.Raw
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("layer root %s: %w: link %.40q to %s", root.Cid, ErrRoot, k.name, k.cid)
		}
	}
	if !l.Rootfs.Defined() || !l.IndexCid.Defined() || !l.TarSplit.Defined() {
		return nil, fmt.Errorf("layer root %s: %w: want links %s, %s and %s", root.Cid, ErrRoot, linkIndex, linkRootfs, linkTarSplit)
	}
	if string(directoryNode(links)) != string(root.Data) || !sorted(links) {
		return nil, fmt.Errorf("layer root %s: %w: not in its canonical form", root.Cid, ErrRoot)
	}
	return l, nil
}

func sorted(links []link) bool {
	for i := 1; i < len(links); i++ {
		if links[i-1].name >= links[i].name {
			return false
		}
	}
	return true
}

func sortLinks(links []link) {
	slices.SortFunc(links, func(a, b link) int { return strings.Compare(a.name, b.name) })
}
