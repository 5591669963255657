package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// TestHeadersAreNotHeld applies entries whose PAX headers are much larger than what is
// kept of them.
func TestHeadersAreNotHeld(t *testing.T) {
	const entries, comment = 100, 512 << 10
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range entries {
		h := &tar.Header{Name: fmt.Sprintf("d/ö%d", i), Linkname: "ö", Typeflag: tar.TypeSymlink, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"comment": strings.Repeat("x", comment), xattrPrefix + "security.a": "ö"}}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	tree, r := newTree(), tar.NewReader(&b)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range entries {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.apply(h); err != nil {
			t.Fatal(err)
		}
	}
	if after := heap(); after > before+entries*comment/4 {
		t.Errorf("%d entries hold %d KiB", entries, (after-before)>>10)
	}
	runtime.KeepAlive(tree)
	runtime.KeepAlive(&b)
}

// TestMetadataBounded applies entries whose metadata has no end, all of the same name and
// of different ones.
func TestMetadataBounded(t *testing.T) {
	value := strings.Repeat("v", MaxXattrValue)
	for name, header := range map[string]func(i int) *tar.Header{
		"xattrs": func(int) *tar.Header {
			return &tar.Header{Name: "f", Typeflag: tar.TypeFifo, PAXRecords: map[string]string{xattrPrefix + "user.a": value}}
		},
		"directory again": func(int) *tar.Header {
			return &tar.Header{Name: strings.Repeat("./", MaxXattrValue/2) + "d", Typeflag: tar.TypeDir}
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := newTree()
			var err error
			for i := 0; err == nil && i <= MaxMetadata/MaxXattrValue; i++ {
				_, err = tree.apply(header(i))
			}
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v, want %v", err, ErrTooLarge)
			}
		})
	}
}

// tangle is a layer of symlinks that make any path through l/ long.
func tangle(t testing.TB) *Index {
	t.Helper()
	files := []file{dir("a"), sym("l", strings.Repeat("a/../", 700)+"k0")}
	for i := range 38 {
		files = append(files, sym(fmt.Sprintf("k%d", i), strings.Repeat("a/../", 700)+fmt.Sprintf("k%d", i+1)))
	}
	return index(t, append(files, dir("k38"))...)
}

// TestMergeWorkBounded merges directories that are implied below symlinks.
func TestMergeWorkBounded(t *testing.T) {
	above := &Index{Entries: []Entry{
		{Parent: -1, Link: -1, Mode: impliedMode, Implied: true},
		{Name: "l", Link: -1, Mode: impliedMode, Implied: true},
	}}
	for i := range 10_000 {
		above.Entries = append(above.Entries, Entry{Name: fmt.Sprintf("%06d", i), Parent: 1, Link: -1, Mode: impliedMode, Implied: true})
	}
	if _, err := EncodeIndex(above); err != nil {
		t.Fatal(err)
	}
	m, err := newMerger(encodedOf(t, tangle(t), above))
	if err != nil {
		t.Fatal(err)
	}
	m.work = MaxWork - 1<<20
	if _, err := m.merge(true); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

// TestPathWorkBounded applies a tar whose every path goes through many symlinks.
func TestPathWorkBounded(t *testing.T) {
	tree := newTree()
	tree.work = MaxWork - 1<<20
	apply := func(f file) error {
		_, err := tree.apply(f.Header())
		return err
	}
	files := []file{dir("a")}
	for i := range 38 {
		files = append(files, sym(fmt.Sprintf("k%d", i), strings.Repeat("a/../", 700)+fmt.Sprintf("k%d", i+1)))
	}
	for _, f := range append(files, dir("k38")) {
		if err := apply(f); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = apply(dir("k0/d"))
	}
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

// TestManyXattrs wants the time for a header to grow with its attributes and not with
// their square; what it wants is that the test ends.
func TestManyXattrs(t *testing.T) {
	records := make(map[string]string)
	for i := range 25_000 {
		records[fmt.Sprintf("%s%04x", xattrPrefix, i)] = ""
	}
	for range 100 {
		tree := newTree()
		if _, err := tree.apply(&tar.Header{Name: "f", Typeflag: tar.TypeFifo, PAXRecords: records}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWindowBounded adds segments of a byte to what is gathered of a tar.
func TestWindowBounded(t *testing.T) {
	w := &window{w: io.Discard}
	for range 100_000 {
		if err := w.raw(context.Background(), []byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	if cap(w.ops) > 4*windowOps {
		t.Errorf("%d segments were gathered", cap(w.ops))
	}
}

// TestDeepShards lists a sharded directory of shards within shards.
func TestDeepShards(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	below := link{name: "00x", cid: ipfs.RawCid(someDigest)}
	for range 100 {
		node := directoryNode([]link{below})
		node[len(node)-1] = unixfsShard
		b, err := ipfs.NewBlock(cid.DagProtobuf, node)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		below = link{name: "00", cid: b.Cid}
	}
	if _, err := listDirectory(ctx, m, below.cid, 100); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

// TestSharedShards lists a directory that three blocks make millions of links of.
func TestSharedShards(t *testing.T) {
	m := newMemory()
	below := ipfs.RawCid(someDigest)
	for _, suffix := range []string{"x", "", ""} {
		var links []link
		for i := range 256 {
			links = append(links, link{name: fmt.Sprintf("%02X%s", i, suffix), cid: below})
		}
		node := directoryNode(links)
		node[len(node)-1] = unixfsShard
		below = putNode(t, m, node).Cid
	}
	if _, err := listDirectory(t.Context(), m, below, 256*256*256); !errors.Is(err, errDagPB) {
		t.Errorf("got %v, want %v", err, errDagPB)
	}
}

// TestLongLeaves gathers files that are said to have a byte, and whose leaves are long: all
// of a window would be very much.
func TestLongLeaves(t *testing.T) {
	m := newMemory()
	w := &window{src: m, w: io.Discard}
	err := error(nil)
	for i := 0; err == nil && i < windowBlocks; i++ {
		b, berr := ipfs.NewBlock(cid.Raw, fmt.Append(nil, "long leaf ", i))
		if berr != nil || m.Put(t.Context(), b) != nil {
			t.Fatal(berr)
		}
		err = w.leaf(t.Context(), b.Cid, 1)
	}
	if !errors.Is(err, ipfs.ErrFile) {
		t.Errorf("got %v, want %v", err, ipfs.ErrFile)
	}
	held := 0
	for _, l := range w.want {
		held += len(l.data)
	}
	if held > 0 {
		t.Errorf("%d bytes of leaves are held that are too long", held)
	}
}

// TestWriteEnds gives up on a tar of raw bytes alone, of which no block is fetched.
func TestWriteEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, m := convert(t, nil)
	tarball := &Tar{layer: l, src: m, split: ipfs.File{}}
	raw := bytes.Repeat([]byte(recRaw(strings.Repeat("x", maxSegment))), 2*windowBytes/maxSegment)
	f, err := loadFile(ctx, m, putFile(t, m, zipped(t, []byte(splitMagic+string(raw)+recTable()))), MaxFile)
	if err != nil {
		t.Fatal(err)
	}
	tarball.split = f
	cancel()
	if err := tarball.Write(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// TestReadTableEnds gives up on a tar-split that decompresses to much more than it is.
func TestReadTableEnds(t *testing.T) {
	l, _ := convert(t, layertest.Tar(t, text("a", "1")))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	table := &Tar{layer: l}
	if err := table.readTable(ctx, bytes.NewReader(splitOf(t, 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func putIndexedOrLeaf(t testing.TB, m *memory, data []byte) cid.Cid {
	t.Helper()
	if len(data) <= ipfs.LeafSize {
		return putFile(t, m, data)
	}
	return putIndexed(t, m, data)
}

// rawIndex encodes entries without the checks of EncodeIndex.
func rawIndex(depths []int, entries ...Entry) []byte {
	out := appendUint(nil, tagVersion, indexVersion)
	out = appendString(out, tagProfile, profile)
	for i := range entries {
		out = appendString(out, tagEntry, string(appendEntry(nil, &entries[i], depths[i])))
	}
	return out
}

// TestHostileLayers puts whole layers of an attacker into a node, and opens them. The
// first is the attack on what images share: the file of a victim's image, under its CID,
// made of the attacker's leaves, all of them right by their own hashes.
func TestHostileLayers(t *testing.T) {
	ctx := context.Background()
	const size = 2 << 20
	victim, m := convert(t, layertest.Tar(t, text("sh", strings.Repeat("v", size))))
	evil, m2 := convert(t, layertest.Tar(t, text("sh", strings.Repeat("e", size))))
	for c, data := range m2.blocks {
		m.blocks[c] = data
	}
	root := Entry{Parent: -1, Link: -1, Mode: impliedMode, Implied: true}
	good := victim.Index.Entries[1]
	stolen := good
	stolen.Extra = &Extra{Leaves: evil.Index.Entries[1].Leaves()}
	short, small := good, good
	short.Size--
	small.Size, small.Extra = 10, nil
	steer := good
	steer.Extra = &Extra{Leaves: good.Leaves(), Xattrs: []Xattr{{"trusted.overlay.redirect", "/etc/shadow"}}}
	other := good
	other.Name = "a"
	loop := Entry{Name: "z", Link: 2, Mode: 0}
	bomb := append(rawIndex([]int{0}, root), bytes.Repeat([]byte{0x1a, 2, 0x0a, 0}, 5<<20)...)
	for name, tc := range map[string]struct {
		raw  []byte
		want error
	}{
		"leaves of its own":    {rawIndex([]int{0, 1}, root, stolen), ipfs.ErrFile},
		"a size that lies":     {rawIndex([]int{0, 1}, root, short), ipfs.ErrFile},
		"trusted.overlay":      {rawIndex([]int{0, 1}, root, steer), ErrXattr},
		"unsorted":             {rawIndex([]int{0, 1, 1}, root, good, other), ErrIndex},
		"a link to itself":     {rawIndex([]int{0, 1, 1}, root, good, loop), ErrIndex},
		"below what is no dir": {rawIndex([]int{0, 1, 2}, root, good, other), ErrIndex},
		"too large":            {bomb, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Open(ctx, m, putLayer(t, m, victim, tc.raw).Cid)
			if !errors.Is(err, tc.want) || l != nil {
				t.Errorf("Open = %v, %v, want %v", l, err, tc.want)
			}
			t.Log(err)
		})
	}
	// A size below a leaf proves itself only against the leaf: see package objects.
	if f := small.File(); f.Cid.Type() != cid.Raw || f.Cid.Equals(good.File().Cid) {
		t.Errorf("a file that claims to be one leaf is %s", f.Cid)
	}
	if _, err := Open(ctx, m, putLayer(t, m, victim, rawIndex([]int{0, 1}, root, good)).Cid); err != nil {
		t.Errorf("the layer that the others were made from: %v", err)
	}
}
