package layer

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/encoding/protowire"
)

// A splitVector is a tar-split, and the files of the layer that it is of.
type splitVector struct {
	Name     string    `json:"name"`
	Hex      string    `json:"hex"`
	Files    []*string `json:"files"`
	Shadowed []string  `json:"shadowed,omitempty"`
	Tar      string    `json:"tar,omitempty"`
	Error    string    `json:"error,omitempty"`
}

func runSplitVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[splitVector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			m := newMemory()
			l, err := OpenBlock(t.Context(), m, v.layer(t, m))
			if err != nil {
				t.Fatal(err)
			}
			var tarball bytes.Buffer
			err = l.WriteTar(t.Context(), m, &tarball)
			if checkWord(t, err, v.Error); err == nil && digest.FromBytes(tarball.Bytes()).String() != v.Tar {
				t.Errorf("the tar is %q", tarball.Bytes())
			}
		})
	}
}

// layer makes a layer of the case.
func (v *splitVector) layer(t *testing.T, m *memory) ipfs.Block {
	t.Helper()
	ctx := context.Background()
	put := func(b ipfs.Block) error { return m.Put(ctx, b) }
	x := &Index{Entries: []Entry{root()}}
	for i, body := range v.Files[1:] {
		name := fmt.Sprintf("%03d", i+1)
		if body == nil {
			x.Entries = append(x.Entries, directory(name, 0))
			continue
		}
		e := regular(name, 0)
		e.Digest, e.Size = sumOf(putFile(t, m, []byte(*body))), int64(len(*body))
		x.Entries = append(x.Entries, e)
	}
	raw, err := EncodeIndex(x)
	if err != nil {
		t.Fatal(err)
	}
	rootfs, err := buildRootfs(ctx, x, put)
	if err != nil {
		t.Fatal(err)
	}
	links := []link{{linkIndex, putFile(t, m, zipped(t, raw)), 0}, {linkRootfs, rootfs.cid, rootfs.tsize}}
	if len(v.Shadowed) > 0 {
		links = append(links, putShadowed(t, m, 0, v.Shadowed...))
	}
	links = append(links, link{linkTarSplit, putFile(t, m, zipped(t, unhex(t, v.Hex))), 0})
	block, err := ipfs.NewBlock(cid.DagProtobuf, directoryNode(links))
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// putShadowed puts shadowed files, numbered from first on, and returns the link to them.
func putShadowed(t *testing.T, m *memory, first int, files ...string) link {
	t.Helper()
	ctx := context.Background()
	var links []link
	for i, body := range files {
		links = append(links, link{strconv.Itoa(first + i), putFile(t, m, []byte(body)), uint64(len(body))})
	}
	sortLinks(links)
	l, err := buildDirectory(ctx, links, func(b ipfs.Block) error { return m.Put(ctx, b) })
	if err != nil {
		t.Fatal(err)
	}
	l.name = linkShadowed
	return l
}

// Records of a tar-split, decompressed.
func recRaw(body string) string { return varints(splitRaw, uint64(len(body))) + body }

func recPayload(size uint64) string { return varints(splitPayload, size) }

// recTable takes the places as they are written.
func recTable(places ...uint64) string {
	return varints(append([]uint64{splitEnd, uint64(len(places))}, places...)...)
}

func varints(vs ...uint64) string {
	var b []byte
	for _, v := range vs {
		b = protowire.AppendVarint(b, v)
	}
	return string(b)
}

// nextEntry is the place of a payload in an entry, by how far that is from the entry of the
// last payload that was in one.
func nextEntry(n int64) uint64 { return 1 + protowire.EncodeZigZag(n) }

// dirFile stands for an entry that is a directory.
const dirFile = "/"

// splitCase is a case whose layer has these files.
func splitCase(name, word string, files []string, shadowed []string, records ...string) splitVector {
	v := splitVector{Name: name, Hex: hex.EncodeToString([]byte(strings.Join(records, ""))), Files: []*string{nil}, Shadowed: shadowed, Error: word}
	for _, f := range files {
		if f == dirFile {
			v.Files = append(v.Files, nil)
			continue
		}
		v.Files = append(v.Files, &f)
	}
	return v
}

// tarCase is a case that gives this tar.
func tarCase(name, tarball string, files []string, shadowed []string, records ...string) splitVector {
	v := splitCase(name, "", files, shadowed, append([]string{splitMagic}, records...)...)
	v.Tar = digest.FromString(tarball).String()
	return v
}

func splitVectors() []splitVector {
	hello := []string{"hello"}
	back := []string{"one", dirFile, "three", "x", "fiver"}
	good := []splitVector{
		tarCase("no record", "", nil, nil, recTable()),
		tarCase("raw bytes", "abcdef", nil, nil, recRaw("abc"), recRaw("def"), recTable()),
		tarCase("a payload between", "-hello+", hello, nil, recRaw("-"), recPayload(5), recRaw("+"), recTable(nextEntry(1))),
		tarCase("a file twice", "hellohello", hello, nil, recPayload(5), recPayload(5), recTable(nextEntry(1), nextEntry(0))),
		tarCase("the places of the specification", "fiverthreeoldthree", back, []string{"old"},
			recPayload(5), recPayload(5), recPayload(3), recPayload(5), recTable(nextEntry(5), nextEntry(-2), 0, nextEntry(0))),
		tarCase("shadowed files in their order", "abbccc", nil, []string{"a", "bb", "ccc"}, recPayload(1), recPayload(2), recPayload(3), recTable(0, 0, 0)),
	}
	return append(good, refusedSplits(hello)...)
}

func refusedSplits(hello []string) []splitVector {
	bad := func(name string, files, shadowed []string, records ...string) splitVector {
		return splitCase(name, "tar-split", files, shadowed, append([]string{splitMagic}, records...)...)
	}
	one := nextEntry(1)
	return []splitVector{
		splitCase("nothing", "tar-split", nil, nil),
		splitCase("another magic", "tar-split", nil, nil, "ipcs tar-split 2\n", recTable()),
		bad("no table", nil, nil, recRaw("abc")),
		bad("a record that nobody knows", nil, nil, varints(3, 1), "a", recTable()),
		bad("a kind of two bytes", nil, nil, "\x81\x00\x01a", recTable()),
		bad("a raw record of no bytes", nil, nil, recRaw(""), recTable()),
		bad("a raw record that is too long", nil, nil, varints(splitRaw, maxSegment+1)),
		bad("a raw record that is cut off", nil, nil, varints(splitRaw, 5), "abc"),
		bad("a payload of no bytes", []string{""}, nil, recPayload(0), recTable(one)),
		bad("a payload of more than 1 TiB", hello, nil, recPayload(MaxFile+1), recTable(one)),
		bad("a size of more than 64 bits", hello, nil, varints(splitPayload), strings.Repeat("\xff", 9), "\x02", recTable(one)),
		bad("a table that is too short", hello, nil, recPayload(5), recTable()),
		bad("a table that is too long", hello, nil, recPayload(5), recTable(one, 1)),
		bad("a table that is cut off", hello, nil, recPayload(5), varints(splitEnd, 1)),
		bad("bytes after the table", nil, nil, recTable(), "a"),
		bad("a place before the first entry", hello, nil, recPayload(5), recTable(nextEntry(-1))),
		bad("a place after the last entry", hello, nil, recPayload(5), recTable(nextEntry(2))),
		bad("a place far away", hello, nil, recPayload(5), recTable(math.MaxUint64)),
		bad("the root as a place", hello, nil, recPayload(5), recTable(nextEntry(0))),
		bad("a directory as a place", []string{dirFile}, nil, recPayload(5), recTable(one)),
		bad("a file that is shorter", hello, nil, recPayload(6), recTable(one)),
		bad("a file that is longer", hello, nil, recPayload(4), recTable(one)),
		bad("no shadowed files", hello, nil, recPayload(5), recTable(0)),
		bad("shadowed files that nobody needs", hello, []string{"a"}, recPayload(5), recTable(one)),
		bad("fewer shadowed files than places", nil, []string{"a"}, recPayload(1), recPayload(1), recTable(0, 0)),
		bad("more shadowed files than places", nil, []string{"a", "b"}, recPayload(1), recTable(0)),
		bad("a shadowed file that is shorter", nil, []string{"ab"}, recPayload(3), recTable(0)),
		bad("a shadowed file that is longer", nil, []string{"ab"}, recPayload(1), recTable(0)),
	}
}
