//go:build linux

package unpack_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/unpack"
)

// A lab is a differ with a node in memory, a content store, and a tmpfs to work on, which
// takes all kinds of files and attributes.
type lab struct {
	*unpack.Differ
	t     testing.TB
	dir   string
	node  *ipfstest.Memory
	store content.Store
	log   *bytes.Buffer // not to be read while the differ works
}

func newLab(t testing.TB) *lab {
	t.Helper()
	hosttest.Root(t)
	l := &lab{t: t, dir: t.TempDir(), node: ipfstest.NewMemory(), log: new(bytes.Buffer)}
	l.mount("tmpfs", l.dir, "tmpfs", "mode=0755")
	var err error
	// Not in the tmpfs: its check for fs-verity leaves a file open until it is collected.
	l.store, err = local.NewLabeledStore(filepath.Join(t.TempDir(), "content"), &labelStore{labels: map[digest.Digest]map[string]string{}})
	l.must(err)
	l.Differ, err = unpack.New(unpack.Config{
		Node: l.node, Content: l.store, Workers: 4,
		Logger: slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	l.must(err)
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// folder makes a directory.
func (l *lab) folder(name string) string {
	l.t.Helper()
	dir := l.path(name)
	l.must(os.MkdirAll(dir, 0o755))
	l.must(os.Chmod(dir, 0o755))
	return dir
}

// mount mounts until the test ends, or the function that it returns was called.
func (l *lab) mount(source, dir, typ, options string) (unmount func()) {
	l.t.Helper()
	if err := unix.Mount(source, dir, typ, 0, options); err != nil {
		l.t.Fatalf("mount %s at %s with %s: %v", typ, dir, options, err)
	}
	var once sync.Once
	unmount = func() {
		once.Do(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				l.t.Errorf("unmount %s: %v", dir, err)
			}
		})
	}
	l.t.Cleanup(unmount)
	return unmount
}

// convert makes a layer of a tar, and returns its descriptor.
func (l *lab) convert(tarball []byte) ocispec.Descriptor {
	l.t.Helper()
	res, err := layer.Write(l.t.Context(), l.node, bytes.NewReader(tarball), layer.WriteOptions{})
	l.must(err)
	dgst, err := mediatype.LayerDigest(res.Root.Cid)
	l.must(err)
	return ocispec.Descriptor{MediaType: mediatype.Layer, Digest: dgst, Size: int64(len(res.Root.Data))}
}

// tarOf gives back the tar of a layer.
func (l *lab) tarOf(dgst digest.Digest) []byte {
	l.t.Helper()
	x := l.open(dgst)
	var b bytes.Buffer
	l.must(x.WriteTar(l.t.Context(), l.node, &b))
	return b.Bytes()
}

func (l *lab) open(dgst digest.Digest) *layer.Layer {
	l.t.Helper()
	root, err := mediatype.RootCid(dgst)
	l.must(err)
	x, err := layer.Open(l.t.Context(), l.node, root)
	l.must(err)
	return x
}

// bind is the mount of a snapshotter that has each snapshot in a directory of its own.
func bind(dir string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rw", "rbind"}}}
}

// overlay is the mount of an active snapshot of the overlay snapshotter; without an upper
// directory it is that of a view. The lower directories come uppermost first.
func (l *lab) overlay(upper string, lower ...string) []mount.Mount {
	options := []string{"index=off"}
	if upper != "" {
		options = append(options, "workdir="+l.folder("work-"+filepath.Base(upper)), "upperdir="+upper)
	}
	lowerdir := "lowerdir="
	for i, dir := range lower {
		if i > 0 {
			lowerdir += ":"
		}
		lowerdir += dir
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, lowerdir)}}
}

// labelStore keeps the labels of the content store in memory.
type labelStore struct {
	mu     sync.Mutex
	labels map[digest.Digest]map[string]string
}

func (s *labelStore) Get(d digest.Digest) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.labels[d]), nil
}

func (s *labelStore) Set(d digest.Digest, labels map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels[d] = maps.Clone(labels)
	return nil
}

func (s *labelStore) Update(d digest.Digest, labels map[string]string) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.labels[d] == nil {
		s.labels[d] = map[string]string{}
	}
	for k, v := range labels {
		if s.labels[d][k] = v; v == "" {
			delete(s.labels[d], k)
		}
	}
	return maps.Clone(s.labels[d]), nil
}

// A file is an entry of a test's tar.
type file = layertest.File

func dir(name string) file        { return file{Name: name, Type: tar.TypeDir, Mode: 0o755, Sec: 1e9} }
func hard(name, to string) file   { return file{Name: name, Type: tar.TypeLink, Link: to} }
func sym(name, to string) file    { return file{Name: name, Type: tar.TypeSymlink, Link: to, Mode: 0o777} }
func text(name, body string) file { return file{Name: name, Body: body} }

// mounted calls fn with a path where mounts are mounted.
func (l *lab) mounted(mounts []mount.Mount, fn func(root string)) {
	l.t.Helper()
	l.must(mount.WithTempMount(l.t.Context(), mounts, func(root string) error {
		fn(root)
		return nil
	}))
}

// apply applies a layer and fails the test if that fails.
func (l *lab) apply(desc ocispec.Descriptor, mounts []mount.Mount) ocispec.Descriptor {
	l.t.Helper()
	applied, err := l.Apply(context.WithoutCancel(l.t.Context()), desc, mounts)
	if err != nil {
		l.t.Fatalf("apply: %v\n%s", err, l.log)
	}
	return applied
}

// lines shows what two lists have not in common.
func lines(want, got []string) string {
	has := make(map[string]int)
	for _, s := range want {
		has[s]++
	}
	var out string
	for _, s := range got {
		if has[s]--; has[s] < 0 {
			out += fmt.Sprintf("  not expected: %s\n", s)
		}
	}
	for _, s := range want {
		if has[s] > 0 {
			has[s]--
			out += fmt.Sprintf("  missing:      %s\n", s)
		}
	}
	return out
}
