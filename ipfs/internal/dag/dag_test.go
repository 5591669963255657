package dag_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

func random(n int) []byte {
	data := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(data)
	return data
}

// read calls fn with a reader of a node.
func read(t *testing.T, src dag.Source, fn func(ctx context.Context, r *dag.Reader) error) {
	t.Helper()
	if err := dag.Read(t.Context(), src, fn); err != nil {
		t.Fatal(err)
	}
}

// TestFiles reads files that are built in all ways there are, as a whole and in part.
func TestFiles(t *testing.T) {
	for _, size := range []int{0, 1, 99, 100, 101, 5000} {
		for _, how := range []dagtest.How{
			{Leaf: 100, Links: 4}, {Leaf: 100, Links: 4, Wrapped: true}, {Leaf: 100, Links: 4, Trickle: true}, {Leaf: 1 << 20, Links: 174, Wrapped: true},
		} {
			t.Run(fmt.Sprint(size, how), func(t *testing.T) {
				node, data := ipfstest.NewMemory(), random(size)
				c := dagtest.New(t, node).File(data, how)
				read(t, node, func(ctx context.Context, r *dag.Reader) error {
					f, err := r.File(ctx, c)
					if err != nil {
						return err
					}
					if f.Size != int64(size) {
						t.Errorf("Size = %d", f.Size)
					}
					for _, at := range []struct{ offset, length int }{{0, size}, {size, 0}, {size / 2, size - size/2}, {size / 3, size / 3}, {0, 0}, {max(size-1, 0), min(size, 1)}} {
						f, err := r.File(ctx, c)
						if err != nil {
							return err
						}
						var out bytes.Buffer
						if err := f.WriteTo(&out, int64(at.offset), int64(at.length)); err != nil || !bytes.Equal(out.Bytes(), data[at.offset:at.offset+at.length]) {
							t.Errorf("%d bytes from %d: got %d, %v", at.length, at.offset, out.Len(), err)
						}
					}
					return nil
				})
			})
		}
	}
}

// tree is a directory to read, with two of the others in it.
func tree(b *dagtest.Builder) (root cid.Cid, files map[string]cid.Cid) {
	small, large := b.Raw("small"), b.File(random(5000), dagtest.How{Leaf: 100, Links: 4})
	files = map[string]cid.Cid{"small": small, "large": large, "link": b.Symlink("small"), "empty": b.Directory(nil)}
	for i := range 300 {
		files[fmt.Sprintf("file %d", i)] = b.Raw(fmt.Sprint(i))
	}
	return b.Directory(map[string]cid.Cid{"plain": b.Directory(files), "sharded": b.Sharded(files, 16), "ä b": small}), files
}

func list(t *testing.T, src dag.Source, c cid.Cid, look bool) map[string]dag.Entry {
	t.Helper()
	found := map[string]dag.Entry{}
	read(t, src, func(ctx context.Context, r *dag.Reader) error {
		for e, err := range r.Entries(ctx, c, look) {
			if err != nil {
				return err
			}
			if _, twice := found[e.Name]; twice {
				t.Errorf("%q is listed twice", e.Name)
			}
			found[e.Name] = e
		}
		return nil
	})
	return found
}

func resolve(t *testing.T, src dag.Source, path string) (c cid.Cid, err error) {
	t.Helper()
	read(t, src, func(ctx context.Context, r *dag.Reader) error {
		c, err = r.Resolve(ctx, path)
		return nil
	})
	return c, err
}

// TestDirectories lists plain and sharded directories, and finds all that is in them.
func TestDirectories(t *testing.T) {
	for name, build := range map[string]func(*dagtest.Builder) *dagtest.Builder{
		"CIDv1": func(b *dagtest.Builder) *dagtest.Builder { return b },
		"CIDv0": (*dagtest.Builder).V0,
	} {
		t.Run(name, func(t *testing.T) {
			node := ipfstest.NewMemory()
			root, files := tree(build(dagtest.New(t, node)))
			for _, dir := range []string{"plain", "sharded"} {
				c, err := resolve(t, node, root.String()+"/"+dir)
				if err != nil {
					t.Fatal(err)
				}
				found := list(t, node, c, true)
				if len(found) != len(files) {
					t.Errorf("%s: %d entries, want %d", dir, len(found), len(files))
				}
				for name, want := range files {
					if e := found[name]; !e.Cid.Equals(want) {
						t.Errorf("%s: %q is %s, want %s", dir, name, e.Cid, want)
					}
					if got, err := resolve(t, node, "/ipfs/"+root.String()+"/"+dir+"/"+name); err != nil || !got.Equals(want) {
						t.Errorf("%s/%s leads to %s, %v; want %s", dir, name, got, err, want)
					}
				}
				for name, want := range map[string]dag.Entry{
					"small": {Kind: dag.Regular, Size: 5}, "large": {Kind: dag.Regular, Size: 5000},
					"link": {Kind: dag.Symlink, Size: 5, Target: "small"}, "empty": {Kind: dag.Directory},
				} {
					e := found[name]
					if want.Name, want.Cid = name, files[name]; e != want {
						t.Errorf("%s: %+v, want %+v", dir, e, want)
					}
				}
				if e := list(t, node, c, false)["large"]; e.Kind != dag.Unknown || e.Size != 0 {
					t.Errorf("%s: not looked at, and yet %+v", dir, e)
				}
			}
		})
	}
}

func TestPaths(t *testing.T) {
	node := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, node))
	c := root.String()
	for path, want := range map[string]error{
		c: nil, "/ipfs/" + c: nil, "ipfs://" + c: nil, "ipfs:" + c: nil, c + "/": nil, c + "/plain/": nil, c + "//plain": nil, c + "/./plain/../sharded": nil, c + "/ä b": nil,
		"": dag.ErrPath, "/": dag.ErrPath, "/ipfs/": dag.ErrPath, "nonsense": dag.ErrPath, "/ipns/" + c: dag.ErrPath, "/ipld/" + c: dag.ErrPath,
		"/" + c: dag.ErrPath, "ipns://" + c: dag.ErrPath, c + "/../../etc": dag.ErrPath, strings.Repeat("x", dag.MaxPath+1): dag.ErrPath,
		c + strings.Repeat("/a", dag.MaxNames+1): dag.ErrPath,
		c + "/absent":                            dag.ErrNoLink, c + "/plain/absent": dag.ErrNoLink, c + "/sharded/absent": dag.ErrNoLink, c + "/absent/below": dag.ErrNoLink,
	} {
		if _, err := resolve(t, node, path); !errors.Is(err, want) {
			t.Errorf("Resolve(%.100q) = %v, want %v", path, err, want)
		}
	}
	for _, below := range []string{"small", "large", "link"} {
		if got, err := resolve(t, node, c+"/plain/"+below+"/x"); err == nil {
			t.Errorf("%s/x leads to %s", below, got)
		}
	}
	node.Remove(files["small"])
	if got, err := resolve(t, node, c+"/plain/small"); err != nil || !got.Equals(files["small"]) {
		t.Errorf("the end of a path is not here: %s, %v", got, err)
	}
	if _, err := resolve(t, ipfstest.NewMemory(), c+"/plain"); !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("the root is not here: %v", err)
	}
}

func TestTar(t *testing.T) {
	node := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, node))
	var out bytes.Buffer
	read(t, node, func(ctx context.Context, r *dag.Reader) error { return r.WriteTar(ctx, &out, root, "top") })
	found := map[string]string{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(h.Name, "/")] = string(text) + h.Linkname
	}
	if want := 4 + 2*len(files); len(found) != want {
		t.Errorf("%d entries, want %d", len(found), want)
	}
	for name, want := range map[string]string{
		"top": "", "top/plain/small": "small", "top/sharded/large": string(random(5000)), "top/sharded/link": "small", "top/plain/empty": "", "top/sharded/file 299": "299", "top/ä b": "small",
	} {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("%q: %d bytes (%v), want %d", name, len(got), ok, len(want))
		}
	}
}

func TestWrongKinds(t *testing.T) {
	node := ipfstest.NewMemory()
	b := dagtest.New(t, node)
	other, err := ipfs.NewBlock(cid.DagCBOR, []byte{0xa0})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Put(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		c    cid.Cid
		want error
	}{
		"a directory":         {b.Directory(nil), dag.ErrIsDirectory},
		"a sharded directory": {b.Sharded(map[string]cid.Cid{"a": b.Raw("a")}, 16), dag.ErrIsDirectory},
		"a symbolic link":     {b.Symlink("x"), dag.ErrNotFile},
		"no UnixFS":           {b.Node([]byte("none")), dag.ErrNotUnixFS},
		"another codec":       {other.Cid, dag.ErrNotUnixFS},
		"not here":            {ipfstest.Blocks(t, 1, 10)[0].Cid, ipfs.ErrNotFound},
	} {
		read(t, node, func(ctx context.Context, r *dag.Reader) error {
			if _, err := r.File(ctx, test.c); !errors.Is(err, test.want) {
				t.Errorf("%s as a file: %v, want %v", what, err, test.want)
			}
			return nil
		})
	}
}

// TestShortFile is of a file whose root says more than its leaves have.
func TestShortFile(t *testing.T) {
	node := ipfstest.NewMemory()
	b := dagtest.New(t, node)
	leaf := b.Raw("five!")
	// A UnixFS file of 900 bytes with one block of 5.
	c := b.Node([]byte("\x08\x02\x18\x84\x07\x20\x05"), &ipld.Link{Cid: leaf, Size: 5})
	read(t, node, func(ctx context.Context, r *dag.Reader) error {
		f, err := r.File(ctx, c)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := f.WriteTo(&out, 0, f.Size); !errors.Is(err, dag.ErrSize) || out.String() != "five!" {
			t.Errorf("%q, %v", out.String(), err)
		}
		return nil
	})
}

// TestFromPeers reads what is elsewhere, and keeps it.
func TestFromPeers(t *testing.T) {
	here, there := ipfstest.NewMemory(), ipfstest.NewMemory()
	root, _ := tree(dagtest.New(t, there))
	here.Connect(there)
	read(t, here, func(ctx context.Context, r *dag.Reader) error { return r.WriteTar(ctx, io.Discard, root, "x") })
	here.Disconnect(there)
	if c, err := resolve(t, here, root.String()+"/sharded/link"); err != nil {
		t.Errorf("%s, %v", c, err)
	}
}

// labelled is a node that says of each block that it fetches that it came from a peer.
type labelled struct {
	*ipfstest.Memory
	mu     sync.Mutex
	cached map[cid.Cid]bool
}

func (l *labelled) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return l.Memory.Fetch(ctx, cids, func(b ipfs.Block) error {
		b.From = "a peer"
		return fn(b)
	})
}

func (l *labelled) Cache(_ context.Context, blocks ...ipfs.Block) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range blocks {
		l.cached[b.Cid] = true
	}
	return nil
}

// TestFetchedIsKept has blocks stored that come many at a time as well.
func TestFetchedIsKept(t *testing.T) {
	node := &labelled{Memory: ipfstest.NewMemory(), cached: map[cid.Cid]bool{}}
	c := dagtest.New(t, node).File(random(5000), dagtest.How{Leaf: 100, Links: 100})
	read(t, node, func(ctx context.Context, r *dag.Reader) error {
		f, err := r.File(ctx, c)
		if err != nil {
			return err
		}
		return f.WriteTo(io.Discard, 0, f.Size)
	})
	if len(node.cached) != 50 {
		t.Errorf("%d blocks were stored, want 50", len(node.cached))
	}
}

// TestInlined reads a file whose leaf is in its CID.
func TestInlined(t *testing.T) {
	node := ipfstest.NewMemory()
	hash, err := mh.Sum([]byte("inlined"), mh.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	leaf := cid.NewCidV1(cid.Raw, hash)
	// A directory with one file.
	root := dagtest.New(t, node).Node([]byte("\x08\x01"), &ipld.Link{Name: "a", Cid: leaf, Size: 7})
	if found := list(t, node, root, true); len(found) != 1 || !found["a"].Cid.Equals(leaf) {
		t.Errorf("%+v", found)
	}
	var out bytes.Buffer
	read(t, node, func(ctx context.Context, r *dag.Reader) error {
		f, err := r.File(ctx, leaf)
		if err != nil {
			return err
		}
		return f.WriteTo(&out, 0, f.Size)
	})
	if out.String() != "inlined" {
		t.Errorf("%q", out.String())
	}
	blocks := 0
	if err := dag.Walk(t.Context(), node, root, func(ipfs.Block) error { blocks++; return nil }); err != nil || blocks != 1 {
		t.Errorf("Walk: %d blocks, %v", blocks, err)
	}
}

// TestEntriesStop ends a listing in the middle.
func TestEntriesStop(t *testing.T) {
	node := ipfstest.NewMemory()
	root, _ := tree(dagtest.New(t, node))
	c, err := resolve(t, node, root.String()+"/sharded")
	if err != nil {
		t.Fatal(err)
	}
	read(t, node, func(ctx context.Context, r *dag.Reader) error {
		for range r.Entries(ctx, c, true) {
			break
		}
		return nil
	})
	err = dag.Read(t.Context(), node, func(ctx context.Context, r *dag.Reader) error {
		ctx, cancel := context.WithCancel(ctx)
		n := 0
		var last error
		for _, last = range r.Entries(ctx, c, false) {
			if n++; n == 40 {
				cancel()
			}
		}
		cancel()
		return last
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, shard := range node.Cids() {
		if shard.Prefix().Codec == cid.DagProtobuf && !shard.Equals(c) {
			node.Remove(shard)
		}
	}
	err = dag.Read(t.Context(), node, func(ctx context.Context, r *dag.Reader) error {
		for _, err := range r.Entries(ctx, c, false) {
			if err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("a shard is not here: %v", err)
	}
}
