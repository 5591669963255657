//go:build linux

package snapshotter_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/snapshotter"
)

// changesOf is the directory for changes of mounts.
func changesOf(mounts []mount.Mount) string {
	for _, o := range mounts[0].Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir
		}
	}
	return mounts[0].Source
}

func layerDescriptor(t testing.TB, root ipfs.Block) ocispec.Descriptor {
	t.Helper()
	d, err := mediatype.LayerDigest(root.Cid)
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediatype.Layer, Digest: d, Size: int64(len(root.Data))}
}

// apply has a layer put on a chain as a client does that knows no remote snapshotters, and
// the snapshotter is asked to have it.
func (l *lab) apply(c chain, root ipfs.Block) chain {
	l.t.Helper()
	desc := layerDescriptor(l.t, root)
	id := desc.Digest
	if c.id != "" {
		id = identity.ChainID([]digest.Digest{c.id, desc.Digest})
	}
	key := l.key("extract-1 " + id.String())
	mounts, err := l.Prepare(l.ctx, key, c.parent)
	if err != nil {
		l.t.Fatal(err)
	}
	if ok, err := l.Adopt(l.ctx, changesOf(mounts), desc); err != nil || !ok {
		l.t.Fatalf("the layer was not adopted: %v", err)
	}
	return l.commit(l.Snapshotter, key, id)
}

// TestAdopt has layers applied by a client that prepares, applies and commits: above them
// containers see what they see on the overlay snapshotter, after a restart, too, and layers
// that are pulled lie on them.
func TestAdopt(t *testing.T) {
	l := newLab(t)
	layers := stack()
	ipcs, plain := chain{}, chain{}
	for _, entries := range layers[:2] {
		b := tarOf(t, entries)
		ipcs, plain = l.apply(ipcs, l.convert(b)), l.extract(l.overlay, plain, b)
		compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
	}
	if usage, err := l.Usage(l.ctx, ipcs.parent); err != nil || usage.Size != 0 {
		t.Errorf("usage is %+v, %v: files were written", usage, err)
	}
	l.restart()
	compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
	b := tarOf(t, layers[2])
	pulled := l.pull(ipcs, l.convert(b))
	plain = l.extract(l.overlay, plain, b)
	compareTrees(t, l.view(l.Snapshotter, pulled.parent), l.view(l.overlay, plain.parent))
	l.work(1, &pulled, &plain)
	compareTrees(t, l.view(l.Snapshotter, pulled.parent), l.view(l.overlay, plain.parent))
}

// TestAdoptOrdinary has a layer applied above an ordinary one.
func TestAdoptOrdinary(t *testing.T) {
	l := newLab(t)
	below, above := tarOf(t, stack()[0]), tarOf(t, stack()[1])
	ipcs, plain := l.extract(l.Snapshotter, chain{}, below), l.extract(l.overlay, chain{}, below)
	ipcs, plain = l.apply(ipcs, l.convert(above)), l.extract(l.overlay, plain, above)
	compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
}

// TestNotAdopted asks for directories that a layer has to be unpacked into.
func TestNotAdopted(t *testing.T) {
	l := newLab(t)
	desc := layerDescriptor(t, l.convert(tarOf(t, []entry{file("a", "a", 0o644)})))
	prepare := func(key string) (dir string) {
		t.Helper()
		mounts, err := l.Prepare(l.ctx, key, "")
		if err != nil {
			t.Fatal(err)
		}
		return changesOf(mounts)
	}
	written := prepare(l.key("extract-1 written"))
	if err := os.WriteFile(filepath.Join(written, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"not ours":        t.TempDir(),
		"below one":       filepath.Join(prepare(l.key("extract-1 below")), "fs"),
		"of a container":  prepare(l.key("container")),
		"written to":      written,
		"not a directory": filepath.Join(written, "x"),
	} {
		if ok, err := l.Adopt(l.ctx, dir, desc); ok || err != nil {
			t.Errorf("%s: adopted: %t, %v", name, ok, err)
		}
	}
	dir := prepare(l.key("extract-1 unsupported"))
	l.PretendUnsupported()
	if ok, err := l.Adopt(l.ctx, dir, desc); ok || err != nil {
		t.Errorf("on a host that cannot mount layers: adopted: %t, %v", ok, err)
	}
}

// TestAdoptedWritten writes beside a layer that was adopted: a commit would lose it.
func TestAdoptedWritten(t *testing.T) {
	l := newLab(t)
	key := l.key("extract-1 written")
	mounts, err := l.Prepare(l.ctx, key, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := changesOf(mounts)
	if ok, err := l.Adopt(l.ctx, dir, layerDescriptor(t, l.convert(tarOf(t, []entry{file("a", "a", 0o644)})))); !ok {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(l.ctx, "committed", key); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("commit: %v", err)
	}
	if err := l.Remove(l.ctx, key); err != nil {
		t.Error(err)
	}
}

// TestAdoptForged applies a layer whose annotations are meant for containerd: it shares
// snapshots by one of them, so that the layer would come into containers of another image.
func TestAdoptForged(t *testing.T) {
	l := newLab(t)
	const victim = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	desc := layerDescriptor(t, l.convert(tarOf(t, []entry{file("a", "a", 0o644)})))
	desc.Annotations = map[string]string{
		snapshots.LabelSnapshotRef:             victim,
		"containerd.io/snapshot/uidmapping":    "0:0:1",
		"containerd.io/snapshot/anything.else": "x",
		mediatype.AnnotationFill:               "false",
	}
	prepare := func(name string) (key, dir string) {
		t.Helper()
		key = l.key("extract-1 " + name)
		mounts, err := l.Prepare(l.ctx, key, "")
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := l.Adopt(l.ctx, changesOf(mounts), desc); err != nil || !ok {
			t.Fatalf("the layer was not adopted: %v", err)
		}
		return key, changesOf(mounts)
	}
	key, _ := prepare("annotated")
	c := l.commit(l.Snapshotter, key, desc.Digest)
	info, err := l.Stat(l.ctx, c.parent)
	if err != nil {
		t.Fatal(err)
	}
	for name := range desc.Annotations {
		if _, there := info.Labels[name]; there != (name == mediatype.AnnotationFill) {
			t.Errorf("label %s of the snapshot: %t", name, there)
		}
	}
	key, dir := prepare("committed")
	as := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: victim})
	if err := l.Commit(l.ctx, l.key("forged"), key, as); !errors.Is(err, snapshotter.ErrContradiction) {
		t.Errorf("commit as a layer of another image: %v", err)
	}
	other := layerDescriptor(t, l.convert(tarOf(t, []entry{file("b", "b", 0o644)})))
	if ok, err := l.Adopt(l.ctx, dir, other); ok || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a second layer into the same snapshot: adopted: %t, %v", ok, err)
	}
	as = snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: desc.Digest.String()})
	if err := l.Commit(l.ctx, l.key("right"), key, as); err != nil {
		t.Error(err)
	}
}
