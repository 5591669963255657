package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
)

// memory is the least Source and Putter that the tests need.
type memory struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
}

func newMemory() *memory { return &memory{blocks: make(map[cid.Cid][]byte)} }

func (m *memory) Put(_ context.Context, blocks ...ipfs.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		if err := ipfs.Verify(b.Cid, b.Data); err != nil {
			return err
		}
		m.blocks[b.Cid] = b.Data
	}
	return nil
}

func (m *memory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blocks[c]
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, ipfs.ErrNotFound)
	}
	return b, nil
}

func (m *memory) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		b, err := m.Get(ctx, c)
		if err != nil {
			return err
		}
		if err := fn(ipfs.Block{Cid: c, Data: b}); err != nil {
			return err
		}
	}
	return nil
}

// A file is an entry of a test's tar.
type file struct {
	name, body, link string
	typ              byte // regular file if zero
	mode             int64
	uid, gid         int
	sec              int64
	xattrs           map[string]string
	major, minor     int64
}

func (f file) header() *tar.Header {
	h := &tar.Header{Name: f.name, Typeflag: f.typ, Linkname: f.link, Mode: f.mode, Uid: f.uid, Gid: f.gid,
		Size: int64(len(f.body)), ModTime: time.Unix(f.sec, 0), Devmajor: f.major, Devminor: f.minor, Format: tar.FormatPAX}
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	for k, v := range f.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[xattrPrefix+k] = v
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return &tar.Header{Name: f.name, Typeflag: h.Typeflag, PAXRecords: map[string]string{"comment": "x"}}
	}
	return h
}

func dir(name string) file        { return file{name: name, typ: tar.TypeDir, mode: 0o755} }
func hard(name, to string) file   { return file{name: name, typ: tar.TypeLink, link: to} }
func sym(name, to string) file    { return file{name: name, typ: tar.TypeSymlink, link: to, mode: 0o777} }
func text(name, body string) file { return file{name: name, body: body} }
func device(name string, n int64) file {
	return file{name: name, typ: tar.TypeChar, major: n, minor: n}
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(f.header()); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// convert writes a layer, opens it, checks rootfs against the index, and that the tar
// comes back.
func convert(t testing.TB, tarball []byte) (*Layer, *memory) {
	t.Helper()
	m := newMemory()
	r, err := Write(context.Background(), m, bytes.NewReader(tarball), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := checkLayer(t, m, r, tarball)
	return l, m
}

func checkLayer(t testing.TB, m *memory, r *Result, tarball []byte) *Layer {
	t.Helper()
	ctx := context.Background()
	l, err := Open(ctx, m, r.Root.Cid)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckRootfs(ctx); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if err := l.WriteTar(ctx, m, &back); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Bytes(), tarball) {
		t.Fatalf("the tar that comes back differs: %d bytes, %d were written", back.Len(), len(tarball))
	}
	if r.Bytes != int64(len(tarball)) {
		t.Fatalf("Result.Bytes = %d, the tar has %d", r.Bytes, len(tarball))
	}
	return l
}

func merge(t testing.TB, bottom bool, layers ...*Index) *Tree {
	t.Helper()
	tree, err := Merge(layers, bottom)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func index(t testing.TB, files ...file) *Index {
	t.Helper()
	l, _ := convert(t, makeTar(t, files...))
	return l.Index
}
