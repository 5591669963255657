//go:build linux

package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

// Content is as much of containerd's content store as layer blobs are written with, and
// manifests found.
type Content interface {
	content.InfoProvider
	content.Ingester
	Manifests
}

// Manifests is as much of it as manifests are found with.
type Manifests interface {
	content.Provider
	Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error
}

// labelBlob is on each ipcs snapshot. containerd copies it to its own record of the snapshot,
// and its garbage collector keeps the blob with this digest as long as that is there.
const labelBlob = "containerd.io/gc.ref.content.ipcs"

const (
	// blobTimeout is how long containerd may take for one blob.
	blobTimeout = 10 * time.Second
	// blobRetry is how long a blob that could not be written is let be, unless its layer is
	// prepared again: Kubernetes looks at all snapshots every ten seconds.
	blobRetry = time.Minute
)

// rootName is the file in the directory of an ipcs snapshot that has its layer root.
const rootName = "root"

// parallelBlobs bounds how many blobs are written at a time: most of it is syncing, and
// containerd syncs its metadata for one at a time.
const parallelBlobs = 4

// blobs writes the blobs of ipcs layers into containerd's content store: what pulls the
// image does not fetch them, since the snapshots are there already, and without them the
// image could not be exported or pushed.
//
// A blob is written when containerd first looks at its record of the snapshot, which every
// pull does after Prepare has answered that the snapshot is there. From then on that record
// keeps the blob, and the caller's lease the record: it needs no lease of its own, and goes
// when image and snapshot are gone. The writing goes on while the next layers are prepared;
// the last one of an image waits for all, so that the image is whole when its pull ends.
type blobs struct {
	store Content // nil if containerd's is not known
	log   *slog.Logger
	slots chan struct{}
	group sync.WaitGroup // of what is being written

	mu      sync.Mutex
	closed  bool
	writing map[blobOf]*writing
	settled map[blobOf]time.Time // zero if the blob is there, else when to try again
	shared  map[string]bool      // snapshots that were prepared again
	// failing is set from a failure to the next success, so that a wrong configuration is
	// not told for each layer.
	failing bool
}

// A blobOf is the blob of a snapshot in a namespace of containerd.
type blobOf struct{ snapshot, namespace string }

// writing is a blob that is being written.
type writing struct {
	done   chan struct{}
	cancel context.CancelFunc
}

// readRoot returns the block of a layer root.
type readRoot func(ctx context.Context, root cid.Cid) ([]byte, error)

func newBlobs(store Content, log *slog.Logger) *blobs {
	return &blobs{
		store: store, log: log, slots: make(chan struct{}, parallelBlobs),
		writing: make(map[blobOf]*writing), settled: make(map[blobOf]time.Time), shared: make(map[string]bool),
	}
}

// ensure has the blob of an ipcs snapshot written for the namespace of the caller, if it is
// not there, and with last waits for all that are being written for it. A failure is only
// logged: the image can be used without its blobs.
func (b *blobs) ensure(ctx context.Context, info snapshots.Info, last bool, read readRoot) {
	namespace, ok := namespaces.Namespace(ctx)
	if !ok || b.store == nil {
		return
	}
	b.begin(ctx, blobOf{info.Name, namespace}, info, read)
	if !last {
		return
	}
	for _, done := range b.pending(namespace) {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// begin begins to write a blob unless it is there, or is being written. The caller may go
// away meanwhile.
func (b *blobs) begin(ctx context.Context, of blobOf, info snapshots.Info, read readRoot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, settled := b.settled[of]
	if b.closed || b.writing[of] != nil || settled && (at.IsZero() || time.Now().Before(at)) {
		return
	}
	// The namespace of the request becomes that of requests on its behalf.
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(context.WithoutCancel(ctx), of.namespace))
	w := &writing{make(chan struct{}), cancel}
	b.writing[of] = w
	b.group.Go(func() {
		defer cancel()
		select {
		case b.slots <- struct{}{}:
			defer func() { <-b.slots }()
		case <-ctx.Done():
		}
		ctx, cancel := context.WithTimeout(ctx, blobTimeout)
		defer cancel()
		b.finish(ctx, of, info, b.write(ctx, info, read))
		close(w.done)
	})
}

// finish notes how writing a blob has ended.
func (b *blobs) finish(ctx context.Context, of blobOf, info snapshots.Info, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.writing, of)
	if err == nil {
		b.failing = false
		if info.Labels[labelBlob] != "" { // nothing else keeps those of older snapshots
			b.settled[of] = time.Time{}
		}
		return
	}
	level := slog.LevelWarn
	if b.failing || b.closed {
		level = slog.LevelDebug
	}
	b.failing = true
	b.settled[of] = time.Now().Add(blobRetry)
	b.log.Log(ctx, level, "the blob of a layer cannot be written to containerd; its image runs, but until it is pulled again, a minute later or more, it cannot be exported or pushed: see that containerd.address is the socket of the containerd that uses this snapshotter",
		"namespace", of.namespace, "snapshot", of.snapshot, "err", err)
}

// pending returns what is closed when blobs that are being written for a namespace are.
func (b *blobs) pending(namespace string) (list []chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for of, w := range b.writing {
		if of.namespace == namespace {
			list = append(list, w.done)
		}
	}
	return list
}

// again is called when containerd prepares a layer whose snapshot is there: its namespace
// has no record of that yet, or none any more.
func (b *blobs) again(snapshot string) {
	b.forget(snapshot)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shared[snapshot] = true
}

// isShared says whether other images may end with this snapshot than the one that it was
// made for.
func (b *blobs) isShared(snapshot string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shared[snapshot]
}

// forget is called when a snapshot is gone.
func (b *blobs) forget(snapshot string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.settled, func(of blobOf, _ time.Time) bool { return of.snapshot == snapshot })
	delete(b.shared, snapshot)
}

// close ends what is being written, and waits for it.
func (b *blobs) close() {
	b.mu.Lock()
	b.closed = true
	for _, w := range b.writing {
		w.cancel()
	}
	b.mu.Unlock()
	b.group.Wait()
}

// write writes the blob unless it is there.
func (b *blobs) write(ctx context.Context, info snapshots.Info, read readRoot) error {
	root, err := cid.Decode(info.Labels[labelRoot])
	if err != nil {
		return fmt.Errorf("layer root on record: %w", err)
	}
	digest, err := mediatype.LayerDigest(root)
	if err != nil {
		return err
	}
	if _, err := b.store.Info(ctx, digest); err == nil || !errdefs.IsNotFound(err) {
		return err
	}
	block, err := read(ctx, root)
	if err != nil {
		return fmt.Errorf("read the layer root %s: %w", root, err)
	}
	var opts []content.Opt
	if diffID := info.Labels[snapshots.LabelSnapshotDiffID]; diffID != "" {
		opts = append(opts, content.WithLabels(map[string]string{labels.LabelUncompressed: diffID}))
	}
	desc := ocispec.Descriptor{MediaType: mediatype.Layer, Digest: digest, Size: int64(len(block))}
	return content.WriteBlob(ctx, b.store, "ipcs-layer-"+digest.String(), bytes.NewReader(block), desc, opts...)
}

// isLast says whether an ipcs snapshot is the last one of an image that is being pulled, as
// far as that can be told. It is taken for that in doubt.
func (s *Snapshotter) isLast(info snapshots.Info) bool {
	image, err := cid.Decode(info.Labels[mediatype.AnnotationImage])
	if err != nil || s.blobs.isShared(info.Name) {
		return true
	}
	top, known := s.opener.top(image)
	return !known || top.String() == info.Labels[labelRoot]
}

// layerRoot reads the block of a layer root: from the directory of its snapshot, which
// needs no peer, or else from the node.
func (s *Snapshotter) layerRoot(ctx context.Context, id string, root cid.Cid) ([]byte, error) {
	block, err := os.ReadFile(s.rootPath(id))
	if err == nil {
		err = ipfs.Verify(root, block)
	}
	if err == nil {
		return block, nil
	}
	if !errors.Is(err, os.ErrNotExist) { // a snapshot of an older version has none
		s.log.Warn("the layer root of a snapshot is read from the node", "snapshot", id, "err", err)
	}
	return s.opener.src.Get(ctx, root)
}

func (s *Snapshotter) rootPath(id string) string {
	return filepath.Join(s.root, snapshotsDir, id, rootName)
}
