package objects_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// adopt has a store adopt a file of these bytes.
func adopt(t *testing.T, s *objects.Store, dir string, f ipfs.File, data []byte) error {
	t.Helper()
	path := filepath.Join(dir, "adopted")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.Adopt(path, f)
}

// TestAdopt adopts files of both layouts, serves their leaves and nodes, and has Check find nothing wrong with them, also after the store was opened again.
func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "repo"))
	type adopted struct {
		file   ipfs.File
		leaves []ipfs.Block
		data   []byte
	}
	var all []adopted
	for i, size := range []int{0, 1, 262144, 262145, 3<<20 + 17, 46 << 20} {
		for _, layout := range []ipfs.Layout{ipfs.LayoutFile, ipfs.LayoutBlob} {
			if size > 174*262144 && layout == ipfs.LayoutFile {
				continue // a second level of nodes is what it is for
			}
			data := objectstest.Random(int64(i), size)
			f, leaves := objectstest.New(t, layout, data)
			if err := adopt(t, s, dir, f, data); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if err := s.Pin(t.Context(), ipfs.Pin{Root: f.Cid, Name: "test"}); err != nil {
				t.Fatal(err)
			}
			all = append(all, adopted{f, leaves, data})
		}
	}
	for range 2 {
		for _, a := range all {
			if got := readAll(t, s, a.file); !bytes.Equal(got, a.data) {
				t.Errorf("%d bytes: other bytes are read", len(a.data))
			}
			for _, leaf := range a.leaves {
				checkBlock(t, s, leaf)
			}
			if len(a.leaves) > 1 {
				if got, err := ipfs.LoadFile(t.Context(), localFetcher{s}, a.file.Cid, a.file.Size, a.file.Layout); err != nil || got != a.file {
					t.Errorf("%d bytes: its nodes: %v", len(a.data), err)
				}
			}
		}
		report, err := s.Check(t.Context(), objects.CheckOptions{})
		if err != nil || len(report.Damaged) > 0 || report.Unlisted > 0 || report.Dangling > 0 {
			t.Errorf("Check finds %+v, %v", report, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, filepath.Join(dir, "repo"))
	}
}

// localFetcher has blocks of one store.
type localFetcher struct{ *objects.Store }

func (s localFetcher) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := s.Get(ctx, c)
		if err == nil {
			err = fn(ipfs.Block{Cid: c, Data: data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestAdoptRefuses what is not what it is said to be, by its size or by its leaves.
func TestAdoptRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "repo"))
	data := objectstest.Random(1, 1<<20)
	f, _ := objectstest.New(t, ipfs.LayoutBlob, data)
	other := f
	other.Layout = ipfs.LayoutFile
	for what, err := range map[string]error{
		"too short":      adopt(t, s, dir, f, data[:len(data)-1]),
		"another layout": adopt(t, s, dir, other, data),
	} {
		if !errors.Is(err, ipfs.ErrFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAdoptedIsFreed frees what was adopted and is not pinned any more, and keeps the leaf that another file has too.
func TestAdoptedIsFreed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "repo"))
	data := objectstest.Random(1, 1<<20)
	both := data[:512<<10]
	one, _ := objectstest.New(t, ipfs.LayoutBlob, data)
	two, shared := objectstest.New(t, ipfs.LayoutBlob, both)
	for _, f := range []ipfs.File{one, two} {
		if err := adopt(t, s, dir, f, data[:f.Size]); err != nil {
			t.Fatal(err)
		}
		if err := s.Pin(t.Context(), ipfs.Pin{Root: f.Cid, Name: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	free := func(f ipfs.File) int64 {
		freed, err := s.Free(t.Context(), []cid.Cid{f.Cid}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return freed
	}
	if freed := free(one); freed != 0 {
		t.Errorf("%d bytes of what is pinned are freed", freed)
	}
	if err := s.Unpin(t.Context(), ipfs.Pin{Root: one.Cid, Name: "test"}); err != nil {
		t.Fatal(err)
	}
	if freed := free(one); freed != 1<<20 {
		t.Errorf("%d bytes are freed, want all", freed)
	}
	for _, leaf := range shared {
		checkBlock(t, s, leaf)
	}
}
