//go:build linux

package snapshotter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// contentStore has a store for each namespace, as containerd has, and may be out of reach.
type contentStore struct {
	dir string

	mu     sync.Mutex
	stores map[string]content.Store
	down   bool
	asked  int
	gate   chan struct{} // closed to let writers pass; nil for always
}

var errDown = errors.New("containerd is out of reach")

func (c *contentStore) in(ctx context.Context) (content.Store, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.down {
		return nil, errDown
	}
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	if c.stores[namespace] == nil {
		if c.stores[namespace], err = local.NewStore(filepath.Join(c.dir, namespace)); err != nil {
			return nil, err
		}
	}
	return c.stores[namespace], nil
}

func (c *contentStore) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	s, err := c.in(ctx)
	if err != nil {
		return content.Info{}, err
	}
	return s.Info(ctx, d)
}

func (c *contentStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	s, err := c.in(ctx)
	if err != nil {
		return nil, err
	}
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Writer(ctx, opts...)
}

func (c *contentStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	s, err := c.in(ctx)
	if err != nil {
		return nil, err
	}
	return s.ReaderAt(ctx, desc)
}

func (c *contentStore) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	s, err := c.in(ctx)
	if err != nil {
		return err
	}
	return s.Walk(ctx, fn, filters...)
}

func (c *contentStore) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *contentStore) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// wholeLab is a lab whose snapshotter knows a content store, with one layer.
type wholeLab struct {
	*lab
	content *contentStore
	root    ipfs.Block
	layer   chain
	digest  digest.Digest
}

func newWholeLab(t *testing.T) *wholeLab {
	w := &wholeLab{lab: newLab(t), content: &contentStore{dir: t.TempDir(), stores: make(map[string]content.Store)}}
	w.config.Content = w.content
	w.restart()
	w.setRoot(w.convert(tarOf(t, []entry{file("a", "a", 0o644)})))
	w.layer = w.pull(chain{}, w.root)
	return w
}

// setRoot has has look for this layer's blob.
func (w *wholeLab) setRoot(root ipfs.Block) {
	w.t.Helper()
	d, err := mediatype.LayerDigest(root.Cid)
	if err != nil {
		w.t.Fatal(err)
	}
	w.root, w.digest = root, d
}

// look does what containerd does when it has recorded a snapshot.
func (w *wholeLab) look(namespace string) snapshots.Info {
	w.t.Helper()
	info, err := w.Stat(namespaces.WithNamespace(w.ctx, namespace), w.layer.parent)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// has finds that a namespace has the layer's blob, or that it has none.
func (w *wholeLab) has(namespace string, want bool) {
	w.t.Helper()
	s, err := w.content.in(namespaces.WithNamespace(w.ctx, namespace))
	if err != nil {
		w.t.Fatal(err)
	}
	block, err := content.ReadBlob(w.ctx, s, ocispec.Descriptor{Digest: w.digest})
	switch {
	case errdefs.IsNotFound(err) && !want:
	case err != nil:
		w.t.Errorf("blob in namespace %s: %v", namespace, err)
	case !want || !slices.Equal(block, w.root.Data):
		w.t.Errorf("blob in namespace %s: %d bytes, wanted %t", namespace, len(block), want)
	}
}

// TestWhole looks at a snapshot as containerd does: its layer's blob is in the content store
// then, of each namespace that has the snapshot and of no other.
func TestWhole(t *testing.T) {
	w := newWholeLab(t)
	if _, err := w.Stat(w.ctx, w.layer.parent); err != nil || w.content.requests() > 0 {
		t.Fatalf("without a namespace: %v, %d requests", err, w.content.requests())
	}
	if info := w.look("one"); info.Labels["containerd.io/gc.ref.content.ipcs"] != w.digest.String() {
		t.Errorf("labels are %v: containerd's collector would take the blob", info.Labels)
	}
	w.has("one", true)
	w.has("two", false)
	before := w.content.requests()
	w.look("one")
	if after := w.content.requests(); after != before {
		t.Errorf("%d requests for a blob that was written", after-before)
	}
	w.look("two")
	w.has("two", true)
}

// TestWholeAgain has the blob collected, with containerd's own record of the snapshot, while
// the snapshot stays: another namespace has it. A further pull writes the blob again.
func TestWholeAgain(t *testing.T) {
	w := newWholeLab(t)
	w.look("one")
	if err := w.content.stores["one"].Delete(w.ctx, w.digest); err != nil {
		t.Fatal(err)
	}
	w.pull(chain{}, w.root)
	w.look("one")
	w.has("one", true)
}

// TestWholeFails has containerd out of reach: the pull goes on, and the next one makes up
// for it. Looking at snapshots, as Kubernetes does all the time, does not try each time.
func TestWholeFails(t *testing.T) {
	w := newWholeLab(t)
	w.content.set(true)
	w.look("one")
	before := w.content.requests()
	w.content.set(false)
	w.look("one")
	if after := w.content.requests(); after != before {
		t.Errorf("%d requests right after a failure", after-before)
	}
	w.pull(chain{}, w.root)
	w.look("one")
	w.has("one", true)
}

// TestWholeOffline writes the blob when no peer has the layer root any more, and when what
// the snapshotter has of it is gone or damaged, but a peer has it.
func TestWholeOffline(t *testing.T) {
	w := newWholeLab(t)
	node := w.node
	w.node = ipfstest.NewMemory()
	w.restart()
	w.look("one")
	w.has("one", true)

	w.node = node
	w.restart()
	roots, err := filepath.Glob(filepath.Join(w.config.Root, "snapshots", "*", "root"))
	if err != nil || len(roots) != 1 {
		t.Fatalf("layer roots: %v, %v", roots, err)
	}
	if err := os.WriteFile(roots[0], []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.look("two")
	w.has("two", true)
	if err := os.Remove(roots[0]); err != nil {
		t.Fatal(err)
	}
	w.look("three")
	w.has("three", true)
}

// TestWholeTogether has many clients look at once.
func TestWholeTogether(t *testing.T) {
	w := newWholeLab(t)
	ctx := namespaces.WithNamespace(w.ctx, "one")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := w.Stat(ctx, w.layer.parent); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	w.has("one", true)
}

// TestWholeLast has writing take long: the layers of an image do not wait for their blobs,
// but the last one, with which its pull ends, waits for all.
func TestWholeLast(t *testing.T) {
	w := newWholeLab(t)
	image, roots := w.imageOf("b", "c", "d")
	w.content.gate = make(chan struct{})
	var c chain
	var looks sync.WaitGroup
	for i, root := range roots {
		c = w.pullOf(image.Cid.String(), c, root)
		for !w.Knows(image.Cid) {
			runtime.Gosched()
		}
		w.layer = c
		if i < len(roots)-1 {
			w.look("one")
			continue
		}
		looks.Go(func() { w.look("one") })
	}
	close(w.content.gate)
	looks.Wait()
	for _, root := range roots {
		w.setRoot(root)
		w.has("one", true)
	}
}

// TestWholeClose closes the snapshotter while containerd does not answer.
func TestWholeClose(t *testing.T) {
	w := newWholeLab(t)
	w.content.gate = make(chan struct{})
	var looks sync.WaitGroup
	looks.Go(func() { w.look("one") })
	for w.content.requests() == 0 {
		runtime.Gosched()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	looks.Wait()
	w.content.gate = nil
	w.start()
	w.look("one")
	w.has("one", true)
}
