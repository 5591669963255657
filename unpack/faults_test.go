//go:build linux

package unpack_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/unpack"
)

// faultyLayer is a layer with some of everything, and the CID of a leaf of its large file.
func (l *lab) faultyLayer() (ocispec.Descriptor, cid.Cid) {
	l.t.Helper()
	body := strings.Repeat("0123456789abcdef", 6*ipfs.LeafSize/16)
	files := []file{dir("d"), text("d/large", body+"end"), hard("d/link", "d/large")}
	for i := range 2000 {
		files = append(files, text(fmt.Sprintf("small/%d/%d", i%9, i), fmt.Sprint("content ", i)))
	}
	desc := l.convert(layertest.Tar(l.t, files...))
	x := l.open(desc.Digest).Index
	for i := range x.Entries {
		if x.Entries[i].Name == "large" {
			return desc, x.Entries[i].File().Leaf(6)
		}
	}
	l.t.Fatal("no large file")
	return desc, cid.Undef
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// wantGoroutines fails the test if there are more than so many goroutines. One that has
// said that it is done may still be on its last instructions.
func wantGoroutines(t *testing.T, want int) {
	t.Helper()
	for range 10_000 {
		if runtime.NumGoroutine() <= want {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines, before there were %d", runtime.NumGoroutine(), want)
}

// TestFaults finds that a failure is told as what it is, and leaves nothing running or open.
func TestFaults(t *testing.T) {
	l := newLab(t)
	desc, leaf := l.faultyLayer()
	l.apply(desc, bind(l.folder("warm"))) // whatever the process opens once is open now
	broken := errors.New("the disk of the node is broken")
	for name, c := range map[string]struct {
		fault func(cancel context.CancelFunc)
		want  error
		class func(error) bool
	}{
		"missing": {fault: func(context.CancelFunc) { l.node.SetFault(missing(leaf)) }, want: ipfs.ErrNotFound, class: errdefs.IsUnavailable},
		"wrong":   {fault: func(context.CancelFunc) { l.node.SetFault(wrong(leaf)) }, want: ipfs.ErrHash, class: errdefs.IsInvalidArgument},
		"failed":  {fault: func(context.CancelFunc) { l.node.SetFault(after(100, broken)) }, want: broken},
		"cancelled": {fault: func(cancel context.CancelFunc) {
			var n atomic.Int32
			l.node.SetFault(func(op string, _ cid.Cid) error {
				if op == "fetch" && n.Add(1) == 300 {
					cancel()
				}
				return nil
			})
		}, want: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			root := l.folder("root-" + name)
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			c.fault(cancel)
			_, err := l.Apply(ctx, desc, bind(root))
			l.node.SetFault(nil)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), desc.Digest.String()) {
				t.Errorf("error is %v, want %v that names the layer", err, c.want)
			}
			if c.class != nil && !c.class(err) {
				t.Errorf("containerd would not know what it is: %v", err)
			}
			wantGoroutines(t, goroutines)
			if n := openFiles(t); n > files {
				t.Errorf("%d open files, before there were %d", n, files)
			}
			l.apply(desc, bind(root)) // over what is left of the first attempt
			l.same(0, l.path("warm"), root, l.implied(desc.Digest))
		})
	}
}

// TestNoSpace finds that what does not fit is an error, and not a layer.
func TestNoSpace(t *testing.T) {
	l := newLab(t)
	desc, _ := l.faultyLayer()
	root := l.folder("root")
	l.mount("tmpfs", root, "tmpfs", "size=1m,mode=0755")
	if _, err := l.Apply(t.Context(), desc, bind(root)); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), desc.Digest.String()) {
		t.Errorf("%v, want %v that names the layer", err, unix.ENOSPC)
	}
}

func missing(c cid.Cid) func(string, cid.Cid) error {
	return func(_ string, asked cid.Cid) error {
		if asked.Equals(c) {
			return fmt.Errorf("block %s: %w", c, ipfs.ErrNotFound)
		}
		return nil
	}
}

func wrong(c cid.Cid) func(string, cid.Cid) error {
	return func(_ string, asked cid.Cid) error {
		if asked.Equals(c) {
			return fmt.Errorf("block %s: %w", c, ipfs.ErrHash)
		}
		return nil
	}
}

func after(n int32, err error) func(string, cid.Cid) error {
	var calls atomic.Int32
	return func(op string, _ cid.Cid) error {
		if op == "fetch" && calls.Add(1) > n {
			return err
		}
		return nil
	}
}

// TestKept applies layers whose images kept their diffIDs: the digest is that of the tar,
// trailing bytes included, and what is unpacked is the tar.
func TestKept(t *testing.T) {
	tarball := append(layertest.Tar(t, dir("d"), text("d/a", "1"), text("d/a", "2"), text(".wh.b", ""), hard("c", "d/a")), "trailing"...)
	for _, to := range []string{"overlay", "plain"} {
		t.Run(to, func(t *testing.T) {
			l := newLab(t)
			desc := l.convert(tarball)
			desc.Annotations = map[string]string{mediatype.AnnotationKeep: "true"}
			want, got := l.folder("want"), l.folder("got")
			mounts, opts := bind(got), []archive.ApplyOpt(nil)
			if to == "overlay" {
				mounts, opts = l.overlay(got, l.folder("below")), []archive.ApplyOpt{archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
			}
			_, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball), opts...)
			l.must(err)
			applied, err := l.Apply(t.Context(), desc, mounts, diff.WithSyncFs(true))
			l.must(err)
			if applied.Digest != digest.FromBytes(tarball) || applied.Size != int64(len(tarball)) {
				t.Errorf("applied %s of %d bytes, want %s of %d", applied.Digest, applied.Size, digest.FromBytes(tarball), len(tarball))
			}
			l.same(0, want, got, func(p string) bool { return p == "." })

			leaf, err := ipfs.NewBlock(cid.Raw, []byte("2"))
			l.must(err)
			goroutines := runtime.NumGoroutine()
			l.node.SetFault(missing(leaf.Cid))
			if _, err := l.Apply(t.Context(), desc, bind(l.folder("half"))); !errors.Is(err, ipfs.ErrNotFound) {
				t.Errorf("a tar with a gap: %v, want %v", err, ipfs.ErrNotFound)
			}
			wantGoroutines(t, goroutines)
		})
	}
}

// TestOrdinary applies an ordinary layer as containerd does.
func TestOrdinary(t *testing.T) {
	l := newLab(t)
	tarball := layertest.Tar(t, dir("d"), text("d/a", "1"))
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(tarball), Size: int64(len(tarball))}
	l.must(content.WriteBlob(t.Context(), l.store, "upload", bytes.NewReader(tarball), desc))
	want, got := l.folder("want"), l.folder("got")
	_, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball))
	l.must(err)
	if applied := l.apply(desc, bind(got)); applied.Digest != desc.Digest {
		t.Errorf("digest %s, want %s", applied.Digest, desc.Digest)
	}
	l.same(0, want, got, func(p string) bool { return p == "." })
}

// countingStore counts the requests for a part of a blob.
type countingStore struct {
	content.Store
	requests *atomic.Int32
}

type countingReader struct {
	content.ReaderAt
	requests *atomic.Int32
}

func (s countingStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := s.Store.ReaderAt(ctx, desc)
	return countingReader{r, s.requests}, err
}

func (r countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.requests.Add(1)
	return r.ReaderAt.ReadAt(p, off)
}

// TestOrdinaryPieces finds that an ordinary layer is read in large pieces: each is a request
// to containerd.
func TestOrdinaryPieces(t *testing.T) {
	l := newLab(t)
	const size = 8 << 20
	tarball := layertest.Tar(t, text("a", strings.Repeat("0123456789abcdef", size/16)))
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(tarball), Size: int64(len(tarball))}
	l.must(content.WriteBlob(t.Context(), l.store, "upload", bytes.NewReader(tarball), desc))
	var requests atomic.Int32
	differ, err := unpack.New(unpack.Config{Node: l.node, Content: countingStore{l.store, &requests}})
	l.must(err)
	_, err = differ.Apply(t.Context(), desc, bind(l.folder("root")))
	l.must(err)
	if n := requests.Load(); n > 2*size>>20 {
		t.Errorf("%d requests for %d bytes", n, desc.Size)
	}
}

// TestProgress finds that progress is a share of the size in the descriptor.
func TestProgress(t *testing.T) {
	l := newLab(t)
	desc, _ := l.faultyLayer()
	var states []int64
	_, err := l.Apply(t.Context(), desc, bind(l.folder("root")), diff.WithSyncFs(true),
		diff.WithProgress(func(_ ocispec.Descriptor, n int64) { states = append(states, n) }))
	l.must(err)
	if len(states) < 3 || states[0] != 0 || states[len(states)-1] != desc.Size {
		t.Fatalf("states %v, want some from 0 to %d", states, desc.Size)
	}
	for i := 1; i < len(states); i++ {
		if states[i] <= states[i-1] {
			t.Fatalf("states %v do not grow", states)
		}
	}
}

// entries lists the headers and contents of a tar.
func entries(t testing.TB, tarball []byte) []string {
	t.Helper()
	var out []string
	for tr := tar.NewReader(bytes.NewReader(tarball)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%c %q -> %q %o %d:%d %d:%d %v %v %s", h.Typeflag, h.Name, h.Linkname, h.Mode, h.Uid, h.Gid,
			h.Devmajor, h.Devminor, h.ModTime.UTC(), h.PAXRecords, digest.FromBytes(body)))
	}
}
