package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// views is a layer with a bit of everything, for tests that change one of its parts.
func views(t *testing.T) (*Layer, *memory, []byte) {
	t.Helper()
	tarball := layertest.Tar(t, dir("d"), text("d/a", "same"), text("d/b", "same"), text("d/large", strings.Repeat("l", 3<<20)),
		text("x", "first"), text("x", "second"), text("empty", ""), sym("s", "d/a"), hard("h", "d/a"), device("dev", 3), text(".wh.gone", ""))
	l, m := convert(t, tarball)
	return l, m, tarball
}

// verify opens a layer and verifies it.
func verify(t *testing.T, m *memory, root ipfs.Block) (*Proof, error) {
	t.Helper()
	return verifyFrom(t, m, root)
}

func verifyFrom(t *testing.T, src Source, root ipfs.Block) (*Proof, error) {
	t.Helper()
	l, err := OpenBlock(t.Context(), src, root)
	if err != nil {
		return nil, err
	}
	tarball, err := l.OpenTar(t.Context(), src)
	if err != nil {
		return nil, err
	}
	return tarball.Verify(t.Context(), nil)
}

func TestVerify(t *testing.T) {
	l, m, tarball := views(t)
	proof, err := verify(t, m, l.Root)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Proof{digest.FromBytes(tarball), int64(len(tarball)), 5}); *proof != want {
		t.Errorf("proof %+v, want %+v", *proof, want)
	}
	opened, err := l.OpenTar(t.Context(), m)
	if err != nil || opened.Size != int64(len(tarball)) {
		t.Errorf("the tar has %d bytes (%v), want %d", opened.Size, err, len(tarball))
	}
}

// forge is a layer whose parts may come from elsewhere; what does not is that of l. All
// CIDs and sizes are right, so nothing but a comparison finds it out.
type forge struct {
	index              *Index
	rootfs             *Index // what rootfs is built from
	tarSplit, shadowed cid.Cid
	tsize              uint64 // added to that of rootfs
}

func (f forge) put(t *testing.T, m *memory, l *Layer) ipfs.Block {
	t.Helper()
	ctx := context.Background()
	links, _, err := parseNode(string(l.Root.Data))
	if err != nil {
		t.Fatal(err)
	}
	for i := range links {
		k := &links[i]
		switch {
		case k.name == linkIndex && f.index != nil:
			raw, err := EncodeIndex(f.index)
			if err != nil {
				t.Fatal(err)
			}
			k.cid = putFile(t, m, zipped(t, raw))
			k.tsize = uint64(len(m.blocks[k.cid]))
		case k.name == linkRootfs && f.rootfs != nil:
			built, err := buildRootfs(ctx, f.rootfs, func(b ipfs.Block) error { return m.Put(ctx, b) })
			if err != nil {
				t.Fatal(err)
			}
			k.cid, k.tsize = built.cid, built.tsize
		case k.name == linkTarSplit && f.tarSplit.Defined():
			k.cid, k.tsize = f.tarSplit, uint64(len(m.blocks[f.tarSplit]))
		case k.name == linkShadowed && f.shadowed.Defined():
			k.cid = f.shadowed
			if k.tsize, err = directorySize(ctx, m, *k); err != nil {
				t.Fatal(err)
			}
		}
		if k.name == linkRootfs {
			k.tsize += f.tsize
		}
	}
	return putNode(t, m, directoryNode(links))
}

// changed returns the index with one entry changed.
func changed(t *testing.T, x *Index, name string, change func(e *Entry)) *Index {
	t.Helper()
	out := &Index{Entries: slices.Clone(x.Entries)}
	for i := range out.Entries {
		if e := &out.Entries[i]; e.Name == name {
			change(e)
			return out
		}
	}
	t.Fatalf("no entry is called %s", name)
	return nil
}

// TestVerifyForged changes one part of a layer after the other, each so that it is a good
// layer by itself.
func TestVerifyForged(t *testing.T) {
	l, m, _ := views(t)
	other, m2 := convert(t, layertest.Tar(t, text("x", "third"), text("x", "fourth")))
	for c, data := range m2.blocks {
		m.blocks[c] = data
	}
	setuid := changed(t, l.Index, "b", func(e *Entry) { e.Mode |= 0o111 })
	moved := changed(t, l.Index, "b", func(e *Entry) { e.Name = "c" })
	evil := changed(t, l.Index, "empty", func(e *Entry) { e.Digest, e.Size = sumOf(putFile(t, m, []byte("evil"))), 4 })
	hidden := &Index{Entries: append(slices.Clone(l.Index.Entries), Entry{Name: "zzz", Parent: 0, Link: -1, Whiteout: true})}
	for name, f := range map[string]forge{
		"metadata in the index":         {index: setuid},
		"a name in the index":           {index: moved},
		"a name in index and rootfs":    {index: moved, rootfs: moved},
		"content in the index":          {index: evil},
		"content in index and rootfs":   {index: evil, rootfs: evil},
		"an entry that no tar has":      {index: hidden},
		"content in rootfs":             {rootfs: evil},
		"a name in rootfs":              {rootfs: moved},
		"places in the tar-split":       {tarSplit: putFile(t, m, swapped(t, l, m))},
		"content in shadowed":           {shadowed: other.Shadowed},
		"the size of rootfs":            {tsize: 1},
		"all of another layer's rootfs": {rootfs: other.Index},
	} {
		t.Run(name, func(t *testing.T) {
			proof, err := verify(t, m, f.put(t, m, l))
			// What only changes content gives another tar, which the caller is told.
			good, gerr := verify(t, m, l.Root)
			if gerr != nil {
				t.Fatal(gerr)
			}
			if err == nil && proof.DiffID == good.DiffID {
				t.Error("passes for the layer that it was made from")
			}
			if err != nil && !errors.Is(err, ErrViews) && !errors.Is(err, ErrTarSplit) {
				t.Errorf("error %v", err)
			}
			t.Log(err)
		})
	}
}

// swapped is the tar-split of l in which two files of the same content stand for each other.
func swapped(t *testing.T, l *Layer, m *memory) []byte {
	t.Helper()
	a := slices.IndexFunc(l.Index.Entries, func(e Entry) bool { return e.Name == "a" })
	b := slices.IndexFunc(l.Index.Entries, func(e Entry) bool { return e.Name == "b" })
	places := layerPlaces(t, l, m)
	for i, p := range places {
		switch p {
		case int32(a):
			places[i] = int32(b)
		case int32(b):
			places[i] = int32(a)
		}
	}
	return withPlaces(t, l, m, places)
}

// layerPlaces are the places of a layer's tar-split.
func layerPlaces(t *testing.T, l *Layer, m *memory) []int32 {
	t.Helper()
	tarball, err := l.OpenTar(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return tarball.places
}

// withPlaces is the tar-split of l with another table.
func withPlaces(t *testing.T, l *Layer, m *memory, places []int32) []byte {
	t.Helper()
	f, err := loadFile(t.Context(), m, l.TarSplit, MaxFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newSplitReader(openFile(t.Context(), m, f))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var out bytes.Buffer
	w, err := newSplitWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for {
		rec, err := r.next()
		if err == io.EOF {
			break
		}
		if err == nil && len(rec.raw) > 0 {
			_, err = w.Write(rec.raw)
		} else if err == nil {
			err = w.payload(rec.size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(places); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestVerifyReadsAll takes away each block of a layer: every one is missed.
func TestVerifyReadsAll(t *testing.T) {
	gnutar := needTar(t)
	src := t.TempDir()
	writeSparse(t, filepath.Join(src, "sparse"), 3<<20)
	sparse, err := exec.Command(gnutar, "--format=pax", "-S", "-C", src, "-c", "sparse").Output()
	if err != nil {
		t.Fatal(err)
	}
	all, m, _ := views(t)
	fromSparse, m2 := convert(t, sparse)
	many := []file{}
	for i := range 1200 {
		many = append(many, text(strings.Repeat("n", 200)+fmt.Sprint(i), "same"))
	}
	sharded, m3 := convert(t, layertest.Tar(t, many...))
	for name, tc := range map[string]struct {
		l *Layer
		m *memory
	}{"all kinds": {all, m}, "sparse": {fromSparse, m2}, "sharded": {sharded, m3}} {
		t.Run(name, func(t *testing.T) {
			if _, err := verify(t, tc.m, tc.l.Root); err != nil {
				t.Fatal(err)
			}
			for _, c := range slices.Collect(maps.Keys(tc.m.blocks)) {
				if c.Equals(tc.l.Root.Cid) {
					continue
				}
				data := tc.m.blocks[c]
				delete(tc.m.blocks, c)
				if _, err := verify(t, tc.m, tc.l.Root); !errors.Is(err, ipfs.ErrNotFound) {
					t.Fatalf("without block %s: %v", c, err)
				}
				tc.m.blocks[c] = data
			}
		})
	}
}

// TestVerifyStops ends when the caller gives up, and leaves nothing running.
func TestVerifyStops(t *testing.T) {
	l, m, _ := views(t)
	tarball, err := l.OpenTar(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := tarball.Verify(ctx, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// slow is a source in which one block takes as long as the caller waits.
type slow struct {
	*memory
	block cid.Cid
}

func (s slow) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	if slices.Contains(cids, s.block) {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.memory.Fetch(ctx, cids, fn)
}

// TestVerifyDoesNotWait ends with what is wrong with a tar, and not when the next block of it
// has come.
func TestVerifyDoesNotWait(t *testing.T) {
	l, m := convert(t, layertest.Tar(t, text("a", "wanted")))
	// One window that ends with a block that is no header, and then one that needs a leaf.
	header := layertest.Tar(t, text("e", ""))[:blockBytes]
	bytewise := append(bytes.Repeat(header, windowOps/blockBytes-1), bytes.Repeat([]byte("x"), blockBytes)...)
	records := splitMagic
	for _, b := range bytewise {
		records += recRaw(string(b))
	}
	records += recPayload(6) + recTable(nextEntry(1))
	root := relinked(t, m, l, linkTarSplit, putFile(t, m, zipped(t, []byte(records))))
	wanted, err := ipfs.NewBlock(cid.Raw, []byte("wanted"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyFrom(t, slow{m, wanted.Cid}, root); !errors.Is(err, ErrTar) {
		t.Errorf("got %v, want %v", err, ErrTar)
	}
}
