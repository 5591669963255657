package dag_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// shard is what a shard of a directory says of itself.
func shard(t testing.TB, bits []byte, width uint64) []byte {
	t.Helper()
	data, err := unixfs.HAMTShardData(bits, width, hamt.HashMurmur3)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzUnixFS reads in all ways a node, another below it and a leaf below both, of which the fuzzer
// chooses what they say of themselves and how their links are called. Whatever it is, it ends,
// without a panic, also in goroutines, and within moderate memory.
func FuzzUnixFS(f *testing.F) {
	link, err := unixfs.SymlinkData("target")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []struct {
		outer, inner []byte
		a, b         string
	}{
		{unixfs.FolderPBData(), unixfs.FolderPBData(), "a", "b"},
		{unixfs.FolderPBData(), link, "..", "a/../../b"},
		{unixfs.FilePBData(nil, 10), unixfs.FilePBData(nil, 5), "", ""},
		{unixfs.FilePBData([]byte("x"), 1<<60), nil, "", ""},
		{[]byte("\x08\x02\x18\x0a\x20\x05\x20\x05"), []byte("\x08\x02\x18\x05\x20\x05"), "", ""},
		{shard(f, []byte{3}, 8), shard(f, []byte{1}, 8), "0", "1name"},
		{shard(f, []byte{3}, 256), shard(f, []byte{1}, 16), "00", "01name"},
		{shard(f, []byte{255, 255}, 16), unixfs.FolderPBData(), "0", ""},
		{shard(f, make([]byte, 32), 8), nil, "0", "1"},
		{shard(f, nil, 1<<40), nil, "0", "1"},
		{shard(f, []byte{3}, 0), nil, "0", "1"},
		{[]byte("\x08\x05"), []byte("\x08\x03"), "0", "1"},
		{nil, nil, "", ""},
	} {
		f.Add(seed.outer, seed.inner, seed.a, seed.b)
	}
	f.Fuzz(func(t *testing.T, outer, inner []byte, a, b string) {
		if len(outer)+len(inner)+len(a)+len(b) > 64<<10 {
			t.Skip("larger nodes are no different")
		}
		node := ipfstest.NewMemory()
		build := dagtest.New(t, node)
		leaf := &ipld.Link{Name: b, Cid: build.Raw("leaf!"), Size: 5}
		child := build.Node(inner, leaf)
		root := build.Node(outer, &ipld.Link{Name: a, Cid: child, Size: 7}, leaf)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = dag.Read(ctx, node, func(ctx context.Context, r *dag.Reader) error {
			if f, err := r.File(ctx, root); err == nil {
				_ = f.WriteTo(io.Discard, 0, min(f.Size, 1<<20))
			}
			if f, err := r.File(ctx, root); err == nil && f.Size > 0 {
				_ = f.WriteTo(io.Discard, f.Size-1, 1)
			}
			for _, look := range []bool{true, false} {
				n := 0
				for range r.Entries(ctx, root, look) {
					if n++; n > 100 {
						t.Fatal("more entries than there are links")
					}
				}
			}
			for _, name := range []string{a, b, a + "/" + b} {
				_, _ = r.Resolve(ctx, root.String()+"/"+name)
			}
			return r.WriteTar(ctx, io.Discard, root, "name")
		})
		if err := dag.Walk(ctx, node, root, func(ipfs.Block) error { return nil }); err != nil {
			t.Errorf("Walk: %v", err)
		}
		if ctx.Err() != nil {
			t.Error("it took more than a minute")
		}
	})
}

// FuzzParsePath finds that what is taken for a path is bounded, and has no names that lead upwards.
func FuzzParsePath(f *testing.F) {
	const c = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"
	for _, seed := range []string{"", "/", c, "/ipfs/" + c, c + "/a/b", "/ipfs/" + c + "/../x", "ipfs://" + c, "/ipns/x", "ipfs:" + c + "//", "/ipfs/Qm", c + "/\x00/\xff", "/ipfs/" + c + "/%2e%2e/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		root, names, err := dag.ParsePath(text)
		if err != nil {
			if !errors.Is(err, dag.ErrPath) {
				t.Errorf("%v", err)
			}
			return
		}
		if !root.Defined() || len(names) > dag.MaxNames {
			t.Errorf("root %v, %d names", root, len(names))
		}
		for _, name := range names {
			if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
				t.Errorf("name %q of %q", name, text)
			}
		}
	})
}
