package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

func open(t *testing.T, dir string) *objects.Store {
	t.Helper()
	s, err := objects.Open(dir, objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func block(t *testing.T, codec uint64, data []byte) ipfs.Block {
	t.Helper()
	b, err := ipfs.NewBlock(codec, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBlocks(t *testing.T) {
	s := open(t, t.TempDir())
	blocks := []ipfs.Block{
		block(t, cid.Raw, nil),
		block(t, cid.Raw, []byte("leaf")),
		block(t, cid.Raw, make([]byte, ipfs.LeafSize)),
		block(t, cid.Raw, objectstest.Random(1, ipfs.MaxBlock)),
		block(t, cid.DagProtobuf, nil),
		block(t, cid.DagProtobuf, []byte("node")),
		block(t, cid.DagCBOR, []byte("record")),
	}
	for range 2 { // a second Put changes nothing
		if err := s.Put(t.Context(), blocks...); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range blocks {
		checkBlock(t, s, b)
	}
	if got, want := s.Stats(), (objects.Stats{Objects: 4, Bytes: 4 + ipfs.LeafSize + ipfs.MaxBlock}); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
	absent := block(t, cid.Raw, []byte("absent")).Cid
	if _, err := s.Get(t.Context(), absent); !errors.Is(err, ipfs.ErrNotFound) || !strings.Contains(err.Error(), absent.String()) {
		t.Errorf("Get of an absent block: %v", err)
	}
	wrong := ipfs.Block{Cid: absent, Data: []byte("something else")}
	if err := s.Put(t.Context(), wrong); !errors.Is(err, ipfs.ErrHash) {
		t.Errorf("Put of a wrong block: %v", err)
	}
	if ok, err := s.Has(t.Context(), absent); ok || err != nil {
		t.Errorf("Has(absent) = %v, %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, blocks[0].Cid); !errors.Is(err, context.Canceled) {
		t.Errorf("Get with a cancelled context: %v", err)
	}
}

func checkBlock(t *testing.T, s *objects.Store, b ipfs.Block) {
	t.Helper()
	got, err := s.Get(t.Context(), b.Cid)
	if err != nil || !bytes.Equal(got, b.Data) {
		t.Errorf("Get(%s) = %d bytes, %v; want %d bytes", b.Cid, len(got), err, len(b.Data))
	}
	if n, err := s.BlockSize(t.Context(), b.Cid); err != nil || n != len(b.Data) {
		t.Errorf("BlockSize(%s) = %d, %v; want %d", b.Cid, n, err, len(b.Data))
	}
	if ok, err := s.Has(t.Context(), b.Cid); !ok || err != nil {
		t.Errorf("Has(%s) = %v, %v", b.Cid, ok, err)
	}
}

func TestDamagedBlocksAreRefusedAndFetchedAgain(t *testing.T) {
	s := open(t, t.TempDir())
	leaf := block(t, cid.Raw, objectstest.Random(1, 1000))
	if err := s.Put(t.Context(), leaf); err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(s.ObjectsDir(), objects.Path(leaf.Cid)), 10)
	if _, err := s.Get(t.Context(), leaf.Cid); !errors.Is(err, ipfs.ErrHash) {
		t.Fatalf("Get of a damaged block: %v", err)
	}
	if _, err := s.Get(t.Context(), leaf.Cid); !errors.Is(err, ipfs.ErrNotFound) {
		t.Fatalf("the damaged block is still there: %v", err)
	}
	if got := s.Stats(); got != (objects.Stats{}) {
		t.Fatalf("Stats() = %+v", got)
	}
	if err := s.Put(t.Context(), leaf); err != nil {
		t.Fatal(err)
	}
	checkBlock(t, s, leaf)
}

// damage changes one byte of a file.
func damage(t *testing.T, path string, off int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func TestPinsSurvive(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := block(t, cid.DagProtobuf, []byte("a")).Cid
	b := block(t, cid.Raw, []byte("b")).Cid
	pins := []ipfs.Pin{{Root: a, Name: "one"}, {Root: a, Name: "two"}, {Root: b, Name: "one"}, {Root: b}}
	for _, p := range append(pins, pins[0]) {
		if err := s.Pin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Unpin(t.Context(), pins[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Pin(t.Context(), ipfs.Pin{Name: "none"}); err == nil {
		t.Error("a pin without CID was taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	for name, want := range map[string][]ipfs.Pin{"": {pins[0], pins[2], pins[3]}, "one": {pins[0], pins[2]}, "on": nil, "two": nil} {
		got, err := s.Pins(t.Context(), name)
		if err != nil || len(got) != len(want) {
			t.Errorf("Pins(%q) = %v, %v; want %v", name, got, err, want)
		}
		for _, p := range want {
			if !slices.Contains(got, p) {
				t.Errorf("Pins(%q) = %v, %v lacks", name, got, p)
			}
		}
	}
}

func TestStatsAndBlocksSurvive(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	blocks := []ipfs.Block{block(t, cid.Raw, []byte("leaf")), block(t, cid.DagProtobuf, []byte("node"))}
	if err := s.Put(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
	want := s.Stats()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		for _, b := range blocks {
			checkBlock(t, s, b)
		}
		if got := s.Stats(); got != want {
			t.Fatalf("Stats() = %+v, want %+v", got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := objects.Open(dir, objects.Options{})
	if !errors.Is(err, objects.ErrLocked) {
		t.Fatalf("second Open: %v", err)
	}
	for _, want := range []string{dir, strconv.Itoa(os.Getpid()), "--ipfs-api"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1\n", "4\n", "no number"} {
		if err := os.WriteFile(filepath.Join(dir, "version"), []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := objects.Open(dir, objects.Options{}); !errors.Is(err, objects.ErrVersion) {
			t.Errorf("Open of version %q: %v", version, err)
		}
	}
}

func TestPath(t *testing.T) {
	c := block(t, cid.Raw, []byte("x")).Cid
	s := c.String()
	if got, want := objects.Path(c), ".ipcs-objects/"+s[len(s)-3:len(s)-1]+"/"+s; got != want {
		t.Fatalf("Path = %s, want %s", got, want)
	}
	if objects.Shard("ab") != "" {
		t.Fatal("a CID of two characters has a shard")
	}
}

func readAll(t *testing.T, s *objects.Store, f ipfs.File) []byte {
	t.Helper()
	file, err := s.OpenFile(f)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// partialFiles lists what is in the making.
func partialFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "partial"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprint(e))
	}
	return names
}
