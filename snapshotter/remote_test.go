//go:build linux

package snapshotter_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/snapshotter"
)

const labelParentChain = "containerd.io/snapshot/parent-chain-id"

// names lists all snapshots, and directories of snapshots.
func (l *lab) names() (names []string) {
	l.t.Helper()
	if err := l.Walk(l.ctx, func(_ context.Context, info snapshots.Info) error {
		names = append(names, info.Name)
		return nil
	}); err != nil && !errdefs.IsNotFound(err) {
		l.t.Fatal(err)
	}
	dirs, err := os.ReadDir(filepath.Join(l.config.Root, "snapshots"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range dirs {
		names = append(names, d.Name())
	}
	return names
}

func TestPrepareRefuses(t *testing.T) {
	l := newLab(t)
	one := l.convert(tarOf(t, []entry{file("a", "a", 0o644)}))
	two := l.convert(tarOf(t, []entry{file("b", "b", 0o644)}))
	base := l.pull(chain{}, one)
	unnamed := l.commit(l.Snapshotter, l.prepare("plain", ""), "")
	good, _ := layerLabels(base.id, two)
	other := digest.FromString("other").String()
	for name, c := range map[string]struct {
		parent string
		change map[string]string // empty: without this label
		want   error
	}{
		"annotation names another layer":       {base.parent, map[string]string{mediatype.AnnotationRoot: one.Cid.String()}, snapshotter.ErrContradiction},
		"diffID of another layer":              {base.parent, map[string]string{snapshots.LabelSnapshotDiffID: other}, snapshotter.ErrContradiction},
		"diffID is not sha256":                 {base.parent, map[string]string{snapshots.LabelSnapshotDiffID: "sha512:" + strings.Repeat("0", 128)}, mediatype.ErrNotLayerRoot},
		"another chainID":                      {base.parent, map[string]string{snapshots.LabelSnapshotRef: other}, snapshotter.ErrContradiction},
		"another parent":                       {base.parent, map[string]string{labelParentChain: other}, snapshotter.ErrContradiction},
		"no parent":                            {"", nil, snapshotter.ErrContradiction},
		"parent without a chainID":             {unnamed.parent, map[string]string{labelParentChain: ""}, snapshotter.ErrContradiction},
		"old containerd, forged chainID":       {base.parent, map[string]string{snapshots.LabelSnapshotDiffID: "", snapshots.LabelSnapshotRef: other}, snapshotter.ErrContradiction},
		"old containerd, parent not on record": {unnamed.parent, map[string]string{snapshots.LabelSnapshotDiffID: ""}, snapshotter.ErrContradiction},
		"no CID":                               {base.parent, map[string]string{mediatype.AnnotationRoot: "x"}, errdefs.ErrInvalidArgument},
		"not a layer root":                     {base.parent, map[string]string{mediatype.AnnotationRoot: ipfs.RawCid(strings.Repeat("x", 32)).String()}, mediatype.ErrNotLayerRoot},
		"chainID is no digest":                 {base.parent, map[string]string{snapshots.LabelSnapshotRef: "x"}, errdefs.ErrInvalidArgument},
		"pulled without the transfer service":  {base.parent, map[string]string{snapshots.LabelSnapshotRef: ""}, snapshotter.ErrNoTarget},
	} {
		t.Run(name, func(t *testing.T) {
			labels := maps.Clone(good)
			for k, v := range c.change {
				labels[k] = v
				if v == "" {
					delete(labels, k)
				}
			}
			before := l.names()
			_, err := l.Prepare(l.ctx, l.key("extract-1 x"), c.parent, snapshots.WithLabels(labels))
			if !errors.Is(err, c.want) || !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			if after := l.names(); len(after) != len(before) {
				t.Errorf("left behind: %v, before %v", after, before)
			}
		})
	}
	if c := l.pull(base, two); c.parent == "" {
		t.Error("the layer itself is refused")
	}
}

// prepare makes an ordinary active snapshot.
func (l *lab) prepare(name, parent string, opts ...snapshots.Opt) string {
	l.t.Helper()
	key := l.key(name)
	if _, err := l.Prepare(l.ctx, key, parent, opts...); err != nil {
		l.t.Fatal(err)
	}
	return key
}

// TestOldContainerd has no diffID among the labels: the chainID on record vouches.
func TestOldContainerd(t *testing.T) {
	l := newLab(t)
	c := chain{}
	for _, name := range []string{"a", "b"} {
		root := l.convert(tarOf(t, []entry{file(name, name, 0o644)}))
		labels, id := layerLabels(c.id, root)
		delete(labels, snapshots.LabelSnapshotDiffID)
		delete(labels, labelParentChain)
		_, err := l.Prepare(l.ctx, l.key("extract-1"), c.parent, snapshots.WithLabels(labels))
		if !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		c = chain{l.find(id, c.parent), id}
	}
	if body, err := os.ReadFile(filepath.Join(l.view(l.Snapshotter, c.parent), "b")); string(body) != "b" {
		t.Errorf("read %q, %v", body, err)
	}
}

// TestContainerKeepsLabels prepares a container whose labels name a layer root, as clients
// that copy labels do: it is a container all the same.
func TestContainerKeepsLabels(t *testing.T) {
	l := newLab(t)
	c := l.pull(chain{}, l.convert(tarOf(t, []entry{file("a", "a", 0o644)})))
	root := digest.FromString("x").String()
	key := l.prepare("container", c.parent, snapshots.WithLabels(map[string]string{
		mediatype.AnnotationRoot: root, "com.github.hinshun.ipcs.snapshot.root": root}))
	if _, err := l.Update(l.ctx, snapshots.Info{Name: c.parent, Labels: map[string]string{"x": "y"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Update(l.ctx, snapshots.Info{Name: key, Labels: map[string]string{"com.github.hinshun.ipcs.snapshot.root": root}},
		"labels.com.github.hinshun.ipcs.snapshot.root"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a label of the snapshotter can be set: %v", err)
	}
	if _, err := l.Mounts(l.ctx, key); err != nil {
		t.Error(err)
	}
	committed := l.commit(l.Snapshotter, key, "", snapshots.WithLabels(map[string]string{"com.github.hinshun.ipcs.snapshot.root": root}))
	if info, err := l.Stat(l.ctx, committed.parent); err != nil || len(info.Labels) != 0 {
		t.Errorf("labels are %v (%v)", info.Labels, err)
	}
}

func TestIndexUnavailable(t *testing.T) {
	l := newLab(t)
	root := l.convert(tarOf(t, []entry{file("a", "a", 0o644)}))
	labels, id := layerLabels("", root)
	publisher := l.node
	l.node = ipfstest.NewMemory() // without peers
	l.config.IndexTimeout = 200 * time.Millisecond
	l.restart()
	opt := snapshots.WithLabels(labels)
	_, err := l.Prepare(l.ctx, l.key("extract-1"), "", opt)
	for _, part := range []string{string(id), root.Cid.String(), "try again"} {
		if !errors.Is(err, snapshotter.ErrIndexUnavailable) || !strings.Contains(err.Error(), part) {
			t.Errorf("error is %v, want it to say %q", err, part)
		}
	}
	l.node.SetLatency(time.Hour)
	if _, err = l.Prepare(l.ctx, l.key("extract-1"), "", opt); !errors.Is(err, snapshotter.ErrIndexUnavailable) {
		t.Errorf("a node that does not answer: %v", err)
	}
	if names := l.names(); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	l.node.SetLatency(0)
	l.node.Connect(publisher)
	l.pull(chain{}, root)
}

// restart closes the snapshotter and opens it again.
func (l *lab) restart() {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.start()
}

func TestImageRecord(t *testing.T) {
	l := newLab(t)
	record, roots := l.imageOf("a", "b", "c", "d")
	for name, image := range map[string]string{"good": record.Cid.String(), "gone": ipfs.RawCid(strings.Repeat("g", 32)).String(), "no record": roots[0].Cid.String(), "no cid": "x"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.node.Connect(l.nodeOf(record))
			c := chain{}
			for _, root := range roots {
				c = l.pullOf(image, c, root)
			}
			l.view(l.Snapshotter, c.parent)
		})
	}
}

// nodeOf returns a node that has the image of TestImageRecord, converted anew.
func (l *lab) nodeOf(record ipfs.Block) *ipfstest.Memory {
	l.t.Helper()
	own := l.node
	l.node = ipfstest.NewMemory()
	if again, _ := l.imageOf("a", "b", "c", "d"); !again.Cid.Equals(record.Cid) {
		l.t.Fatal("the same tars gave another image")
	}
	publisher := l.node
	l.node = own
	return publisher
}

// TestConcurrentPrepares prepares one image from many clients, and starts containers.
func TestConcurrentPrepares(t *testing.T) {
	l := newLab(t)
	var roots []ipfs.Block
	for _, entries := range stack() {
		roots = append(roots, l.convert(tarOf(t, entries)))
	}
	const clients = 8
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			c := chain{}
			for i, root := range roots {
				labels, id := layerLabels(c.id, root)
				key := "client/" + string(rune('a'+client)) + string(rune('0'+i))
				if _, err := l.Prepare(l.ctx, key, c.parent, snapshots.WithLabels(labels)); !errdefs.IsAlreadyExists(err) {
					t.Error(err)
					return
				}
				c = chain{l.find(id, c.parent), id}
			}
			key := "container/" + string(rune('a'+client))
			if _, err := l.Prepare(l.ctx, key, c.parent); err != nil {
				t.Error(err)
			}
			if err := l.Remove(l.ctx, key); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if names := l.names(); len(names) != 2*len(roots) {
		t.Errorf("snapshots and directories are %v, want %d of each", names, len(roots))
	}
	if images, _ := filepath.Glob(filepath.Join(l.config.Root, "chains", "*.erofs")); len(images) != 1 {
		t.Errorf("images are %v, want one", images)
	}
}

// TestWalkNothing: that there was never a snapshot is no error, and what the callee says is.
func TestWalkNothing(t *testing.T) {
	l := newLab(t)
	if err := l.Walk(l.ctx, func(context.Context, snapshots.Info) error { return errdefs.ErrNotFound }); err != nil {
		t.Error(err)
	}
	l.prepare("one", "")
	if err := l.Walk(l.ctx, func(context.Context, snapshots.Info) error { return errdefs.ErrNotFound }); !errdefs.IsNotFound(err) {
		t.Errorf("the callee's error is %v", err)
	}
}
