//go:build linux

package snapshotter_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/metafs/metafstest"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/snapshotter"
)

func TestMain(m *testing.M) {
	hosttest.Main(m, map[string]func(string) error{metafstest.Program: metafstest.Serve})
}

// noLazy stands for the lazy file system where all objects are local.
func noLazy(string, snapshotter.Files) (snapshotter.Lazy, error) { return allLocal{}, nil }

type allLocal struct{}

func (allLocal) Close() error                            { return nil }
func (allLocal) Unmount() error                          { return nil }
func (allLocal) Recheck(func(cid.Cid) (ipfs.File, bool)) {}

// lab is a snapshotter with a node in memory, next to containerd's overlay snapshotter.
type lab struct {
	*snapshotter.Snapshotter
	t       *testing.T
	ctx     context.Context
	config  snapshotter.Config
	lazy    snapshotter.MountLazy
	node    *ipfstest.Memory
	overlay snapshots.Snapshotter
	keys    int
	served  *lazyfs.Server // of newLazyLab, the last
}

func newLab(t *testing.T) *lab { return newLabIn(t, t.TempDir()) }

func newLabIn(t *testing.T, dir string) *lab {
	t.Helper()
	hosttest.Root(t)
	l := &lab{t: t, ctx: t.Context(), node: ipfstest.NewMemory(), lazy: noLazy}
	l.config = snapshotter.Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), ObjectsDir: filepath.Join(dir, "objects"),
		IndexTimeout: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	l.config.ServeImage = metafstest.Lazy(t)
	// The whole suite can be run in a way to mount that an older kernel has.
	for name, mode := range map[string]encoding.TextUnmarshaler{"DATA": &l.config.Mounts.Data, "IMAGE": &l.config.Mounts.Image} {
		if err := mode.UnmarshalText([]byte(os.Getenv("IPCS_TEST_" + name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(l.config.ObjectsDir, objects.Hidden), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.overlay, err = overlay.NewSnapshotter(filepath.Join(dir, "overlay"), overlay.WithRemapIDs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), l.overlay.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
		if left := mountsBelow(t, l.config.State); len(left) > 1 || len(left) == 1 && left[0] != l.config.State {
			t.Errorf("left mounted: %v", left)
		}
	})
	l.start()
	return l
}

// start opens the snapshotter, for the first time or again.
func (l *lab) start() {
	l.t.Helper()
	s, err := snapshotter.New(l.ctx, l.config, l.node, l.lazy)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Snapshotter = s
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, m := range found {
		paths = append(paths, m.Mountpoint)
	}
	return paths
}

// key returns a key that was not used before.
func (l *lab) key(name string) string {
	l.keys++
	return fmt.Sprintf("test/%d/%s", l.keys, name)
}

// entry is one entry of a tar.
type entry struct {
	tar.Header
	body string
}

func file(name, body string, mode int64) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body)), Uid: 3, Gid: 4}, body}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: 1000, Gid: 50}, ""}
}

func special(typ byte, name, target string) entry {
	return entry{tar.Header{Typeflag: typ, Name: name, Linkname: target, Mode: 0o640, Devmajor: 1, Devminor: 3}, ""}
}

func (e entry) with(name, value string) entry {
	e.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return e
}

func tarOf(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, e := range entries {
		e.Format = tar.FormatPAX
		e.ModTime = time.Unix(1_500_000_000+int64(i), 123_456_789)
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// convert writes a tar as an ipcs layer to the node, and its objects to the disk.
func (l *lab) convert(b []byte) ipfs.Block {
	l.t.Helper()
	root, err := l.writeLayer(l.ctx, b)
	if err != nil {
		l.t.Fatal(err)
	}
	return root
}

func (l *lab) writeLayer(ctx context.Context, b []byte) (root ipfs.Block, err error) {
	result, err := layer.Write(ctx, l.node, bytes.NewReader(b), layer.WriteOptions{})
	if err != nil {
		return root, err
	}
	opened, err := layer.Open(ctx, l.node, result.Root.Cid)
	if err != nil {
		return root, err
	}
	for i := range opened.Index.Entries {
		if e := &opened.Index.Entries[i]; e.Mode.IsRegular() && e.Size > 0 && e.Link < 0 {
			if err := l.putObject(ctx, e.File()); err != nil {
				return root, err
			}
		}
	}
	return result.Root, nil
}

func (l *lab) putObject(ctx context.Context, f ipfs.File) error {
	var data []byte
	for i := range f.NumLeaves() {
		leaf, err := l.node.Get(ctx, f.Leaf(i))
		if err != nil {
			return err
		}
		data = append(data, leaf...)
	}
	path := filepath.Join(l.config.ObjectsDir, objects.Path(f.Cid))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// chain is an image on a snapshotter: the names of its snapshots, and its chainID.
type chain struct {
	parent string
	id     digest.Digest
}

// labels returns what containerd says when it prepares an ipcs layer.
func layerLabels(parent digest.Digest, root ipfs.Block) (map[string]string, digest.Digest) {
	d, err := mediatype.LayerDigest(root.Cid)
	if err != nil {
		panic(err) // only the test can have made it
	}
	id := d
	labels := map[string]string{
		mediatype.AnnotationRoot:      root.Cid.String(),
		snapshots.LabelSnapshotDiffID: d.String(),
	}
	if parent != "" {
		labels["containerd.io/snapshot/parent-chain-id"] = parent.String()
		id = identity.ChainID([]digest.Digest{parent, d})
	}
	labels[snapshots.LabelSnapshotRef] = id.String()
	return labels, id
}

// imageOf writes an image to the node whose layers have a file each.
func (l *lab) imageOf(names ...string) (record ipfs.Block, roots []ipfs.Block) {
	l.t.Helper()
	for _, name := range names {
		roots = append(roots, l.convert(tarOf(l.t, []entry{file(name, name, 0o644)})))
	}
	return snapshotter.PutRecord(l.t, l.node, roots), roots
}

// pull prepares an ipcs layer on a chain as containerd does, and finds its snapshot.
func (l *lab) pull(c chain, root ipfs.Block) chain {
	l.t.Helper()
	return l.pullOf("", c, root)
}

// pullOf is pull of a layer that names the record of its image.
func (l *lab) pullOf(record string, c chain, root ipfs.Block) chain {
	l.t.Helper()
	labels, id := layerLabels(c.id, root)
	if record != "" {
		labels[mediatype.AnnotationImage] = record
	}
	mounts, err := l.Prepare(l.ctx, l.key("extract-1 "+id.String()), c.parent, snapshots.WithLabels(labels))
	if !errdefs.IsAlreadyExists(err) || mounts != nil {
		l.t.Fatalf("Prepare of an ipcs layer: %v, %v; want already exists", mounts, err)
	}
	name := l.find(id, c.parent)
	if name == "" {
		l.t.Fatal("no snapshot for the layer")
	}
	return chain{name, id}
}

// find looks for a snapshot as containerd does after "already exists".
func (l *lab) find(id digest.Digest, parent string) (name string) {
	l.t.Helper()
	filter := fmt.Sprintf(`labels.%q==%s,parent==%q`, snapshots.LabelSnapshotRef, id, parent)
	err := l.Walk(l.ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			name = info.Name
		}
		return nil
	}, filter)
	if err != nil {
		l.t.Fatal(err)
	}
	return name
}

// extract applies a tar to a chain of sn as containerd does.
func (l *lab) extract(sn snapshots.Snapshotter, c chain, b []byte) chain {
	l.t.Helper()
	diffID := digest.FromBytes(b)
	id := diffID
	if c.id != "" {
		id = identity.ChainID([]digest.Digest{c.id, diffID})
	}
	opt := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: id.String()})
	key := l.key("extract-1 " + id.String())
	mounts, err := sn.Prepare(l.ctx, key, c.parent, opt)
	if err != nil {
		l.t.Fatal(err)
	}
	upper, opts := mounts[0].Source, []archive.ApplyOpt{archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
	for _, o := range mounts[0].Options {
		if v, ok := strings.CutPrefix(o, "upperdir="); ok {
			upper = v
		}
		if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
			parents := strings.Split(v, ":") // as containerd's apply does
			opts = append(opts, archive.WithParents(parents))
			for _, p := range parents {
				if _, err := os.Stat(p); err != nil {
					l.t.Errorf("parent of an extraction: %v", err)
				}
			}
		}
	}
	if _, err := archive.Apply(l.ctx, upper, bytes.NewReader(b), opts...); err != nil {
		l.t.Fatal(err)
	}
	return l.commit(sn, key, id, opt)
}

func (l *lab) commit(sn snapshots.Snapshotter, key string, id digest.Digest, opts ...snapshots.Opt) chain {
	l.t.Helper()
	name := l.key(string(id))
	if err := sn.Commit(l.ctx, name, key, opts...); err != nil {
		l.t.Fatal(err)
	}
	return chain{name, id}
}

// active prepares a container's snapshot and mounts it until the test ends.
func (l *lab) active(sn snapshots.Snapshotter, parent string) (key, path string) {
	l.t.Helper()
	key = l.key("container")
	mounts, err := sn.Prepare(l.ctx, key, parent)
	if err != nil {
		l.t.Fatal(err)
	}
	return key, l.mount(mounts)
}

// view mounts a view of a snapshot until the test ends.
func (l *lab) view(sn snapshots.Snapshotter, parent string) string {
	l.t.Helper()
	mounts, err := sn.View(l.ctx, l.key("view"), parent)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.mount(mounts)
}

func (l *lab) mount(mounts []mount.Mount) string {
	l.t.Helper()
	if last := mounts[len(mounts)-1]; last.Type == "overlay" && strings.Contains(strings.Join(last.Options, " "), "::") {
		l.t.Errorf("containerd would look into the directories of %v without mounting it", last)
	}
	path := l.t.TempDir()
	if err := mount.All(mounts, path); err != nil {
		l.t.Fatalf("mount %v: %v", mounts, err)
	}
	l.t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			l.t.Errorf("unmount: %v", err)
		}
	})
	return path
}
