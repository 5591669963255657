//go:build linux

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs"
)

// writersDir holds tars by different programs: of a tree with all that is awkward in a tar,
// and the layers of images. Its README says which. What is in refused/ nobody can apply.
const writersDir = "testdata/writers"

// TestWriters holds Write, WriteTar and Merge to containerd for tars as they are found.
func TestWriters(t *testing.T) {
	hosttest.Root(t)
	for name, tarballs := range writersTars(t, writersDir) {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			var layers []*Index
			contents := make(map[string]string)
			for _, tarball := range tarballs {
				l, m := convert(t, tarball)
				checkProof(t, l, m, tarball)
				layers = append(layers, l.Index)
				hashContents(t, l, m, contents)
				if err := h.apply(t, withoutSparse(t, tarball)); err != nil {
					t.Fatal(err)
				}
			}
			tree := merge(t, true, layers...)
			for i := range tree.Inodes {
				if n := &tree.Inodes[i]; n.Extra != nil && n.Extra.Leaves != "" {
					n.Digest = contents[n.Digest]
				}
			}
			compareViews(t, h.view(t), treeView(tree), timeless(layers))
		})
	}
}

// checkProof verifies a layer against its tar.
func checkProof(t *testing.T, l *Layer, m *memory, tarball []byte) {
	t.Helper()
	split, err := l.OpenTar(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := split.Verify(t.Context(), nil)
	if err != nil || proof.DiffID != digest.FromBytes(tarball) {
		t.Errorf("verified as %+v, %v", proof, err)
	}
}

// hashContents maps the digests of files of several leaves to those of their bytes, which
// are the same for others.
func hashContents(t *testing.T, l *Layer, m *memory, into map[string]string) {
	t.Helper()
	for i := range l.Index.Entries {
		e := &l.Index.Entries[i]
		if e.Leaves() == "" {
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, openFile(t.Context(), m, e.File())); err != nil {
			t.Fatal(err)
		}
		into[e.Digest] = string(h.Sum(nil))
	}
}

// TestWritersRefused has tars that containerd refuses, and some that ipcs refuses alone.
func TestWritersRefused(t *testing.T) {
	hosttest.Root(t)
	type refusal struct {
		want error
		ours bool // and not containerd's
	}
	others := map[string]refusal{
		"bsdtar-v7tar":    {want: ErrHardlink},
		"gnutar-absolute": {want: ErrPath, ours: true}, // absolute names are not for a layer
		// containerd ignores what it cannot read there, and with it, now and then, a name.
		"gnutar-posix-globexthdr-wrong": {want: ErrTar, ours: true},
	}
	for name, tarballs := range writersTars(t, filepath.Join(writersDir, "refused")) {
		t.Run(name, func(t *testing.T) {
			r, ok := others[name]
			if !ok {
				r.want = ErrTar
			}
			if theirs := newHost(t).apply(t, tarballs[0]); (theirs == nil) != r.ours {
				t.Errorf("containerd: %v", theirs)
			}
			_, err := Write(t.Context(), newMemory(), bytes.NewReader(tarballs[0]), WriteOptions{})
			if !errors.Is(err, r.want) {
				t.Errorf("error %v, want %v", err, r.want)
			}
		})
	}
}

// A putCounter counts how often each block is put.
type putCounter struct {
	mu   sync.Mutex
	puts map[cid.Cid]int
}

func (p *putCounter) Put(_ context.Context, blocks ...ipfs.Block) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range blocks {
		p.puts[b.Cid]++
	}
	return nil
}

// TestHole puts the leaf that a hole is made of once a core, however large the hole.
func TestHole(t *testing.T) {
	const size = 256 << 20
	hole := ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.numblocks=0", "GNU.sparse.map=", fmt.Sprintf("GNU.sparse.size=%d", size)), fileEntry("a", ""))
	p := &putCounter{puts: make(map[cid.Cid]int)}
	if _, err := Write(t.Context(), p, bytes.NewReader(buildTar(t, hole)), WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	leaf, err := ipfs.NewBlock(cid.Raw, make([]byte, ipfs.LeafSize))
	if err != nil {
		t.Fatal(err)
	}
	if n := p.puts[leaf.Cid]; n == 0 || n > runtime.GOMAXPROCS(0) {
		t.Errorf("the leaf was put %d times", n)
	}
}

// writersTars returns the tars of a folder by their names. The layers of an image are
// NAME.0, NAME.1 and so on.
func writersTars(t *testing.T, dir string) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.tar.zst")) // sorted
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has %d tars, %v", dir, len(files), err)
	}
	zip, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer zip.Close()
	out := make(map[string][][]byte)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tarball, err := zip.DecodeAll(data, nil)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		out[name] = append(out[name], tarball)
	}
	return out
}

// withoutSparse makes regular files of those of type S, which containerd refuses and other
// engines take. A tar without such is returned as it is.
func withoutSparse(t *testing.T, tarball []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	sparse := false
	eachEntry(t, tarball, func(hdr *tar.Header, _ io.Reader) {
		sparse = sparse || hdr.Typeflag == tar.TypeGNUSparse
	})
	if !sparse {
		return tarball
	}
	eachEntry(t, tarball, func(hdr *tar.Header, content io.Reader) {
		if hdr.Typeflag == tar.TypeGNUSparse {
			hdr.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, content); err != nil {
			t.Fatal(err)
		}
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func eachEntry(t *testing.T, tarball []byte, do func(*tar.Header, io.Reader)) {
	t.Helper()
	for tr := tar.NewReader(bytes.NewReader(tarball)); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		do(hdr, tr)
	}
}
