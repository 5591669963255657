package layer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// MaxDirectory is the size in bytes of the largest UnixFS directory that is one block.
const MaxDirectory = maxDirectory

// A Link is a name in a UnixFS directory.
type Link struct {
	Name string
	Cid  cid.Cid
	Size uint64 // bytes of all blocks below, with each as often as it is linked (dag-pb's Tsize)
}

// NewDirectory returns the UnixFS directory with these links, in any order, as profile
// unixfs-v1-2025 has it. The error is ErrTooLarge, wrapped, for one that would have to be
// sharded.
func NewDirectory(links []Link) (ipfs.Block, error) {
	list := make([]link, 0, len(links))
	size := len(directoryNode(nil))
	for _, l := range links {
		if l.Name == "" || strings.Contains(l.Name, "/") {
			return ipfs.Block{}, fmt.Errorf("make directory: %q is no name", l.Name)
		}
		list = append(list, link{l.Name, l.Cid, l.Size})
		size += linkSize(list[len(list)-1])
	}
	sortLinks(list)
	if !sorted(list) {
		return ipfs.Block{}, fmt.Errorf("make directory: two links have the same name")
	}
	if size > maxDirectory {
		return ipfs.Block{}, fmt.Errorf("make directory of %d names: %w (%d bytes)", len(list), ErrTooLarge, maxDirectory)
	}
	return ipfs.NewBlock(cid.DagProtobuf, directoryNode(list))
}

// ReadDirectory returns the links of a UnixFS directory, sorted by name. It takes the one form
// that NewDirectory, and every IPFS tool, writes, and so nothing that is sharded or has a name
// twice; the error is ErrDirectory, wrapped. The block is taken to have the bytes of its CID.
func ReadDirectory(b ipfs.Block) ([]Link, error) {
	if b.Cid.Type() != cid.DagProtobuf || len(b.Data) > maxDirectory {
		return nil, fmt.Errorf("directory %s: %w: it is no dag-pb block of at most %d bytes", b.Cid, ErrDirectory, maxDirectory)
	}
	list, _, err := parseNode(string(b.Data))
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w: %w", b.Cid, ErrDirectory, err)
	}
	if string(directoryNode(list)) != string(b.Data) || !sorted(list) {
		return nil, fmt.Errorf("directory %s: %w: not in its canonical form, or sharded", b.Cid, ErrDirectory)
	}
	links := make([]Link, 0, len(list))
	for _, l := range list {
		links = append(links, Link{l.name, l.cid, l.tsize})
	}
	return slices.Clip(links), nil
}

// DagSize returns the bytes of a DAG, as the links of its root, a dag-pb block, tell them: the
// Size of a link to it.
func DagSize(root ipfs.Block) (uint64, error) {
	list, _, err := parseNode(string(root.Data))
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", root.Cid, err)
	}
	size := uint64(len(root.Data))
	for _, l := range list {
		size += l.tsize
	}
	return size, nil
}
