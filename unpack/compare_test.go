//go:build linux

package unpack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/unpack"
)

// whole is what the log says when whole trees are compared.
const whole = "comparing whole trees"

// base is what containers change in these tests.
func base() []file {
	caps := map[string]string{"security.capability": capability}
	return []file{
		dir("bin"), {Name: "bin/tool", Body: strings.Repeat("tool", 50_000), Mode: 0o755, Sec: 1e9, Xattrs: caps},
		dir("etc"), text("etc/a", "a"), text("etc/b", "b"), {Name: "etc/c", Body: "c", Sec: 1e9}, sym("etc/link", "a"),
		dir("lib"), dir("lib/x"), text("lib/x/1", "1"), text("lib/x/2", "2"), text("lib/y", "y"), hard("lib/z", "lib/y"),
		dir("opt"), dir("opt/app"), text("opt/app/one", "one"), text("opt/app/two", "two"), {Name: "opt/app/same", Body: "same", Sec: 1e9},
		dir("var"), sym("var/out", "/"), text("gone", "x"), dir("gone-dir"), text("gone-dir/f", "x"), dir("to-file"), text("to-file/f", ""), text("to-dir", ""),
		dir("renamed"), text("renamed/f", "f"),
	}
}

// edit changes a root file system in all ways in which an overlay tells of it.
func (l *lab) edit(root string) {
	at := func(name string) string { return filepath.Join(root, name) }
	write := func(name, body string) { l.must(os.WriteFile(at(name), []byte(body), 0o640)) }
	date := time.Unix(1e9, 0)
	write("new", "new")
	write("etc/a", "changed")
	l.must(os.Chmod(at("bin/tool"), 0o700))
	// Copied up, and as it was: no change.
	f, err := os.OpenFile(at("etc/c"), os.O_RDWR, 0)
	l.must(err)
	l.must(f.Close())
	l.must(os.Chtimes(at("etc/c"), date, date))
	l.must(os.Chown(at("lib"), 5, 6))
	l.must(os.Link(at("lib/x/1"), at("lib/x/linked")))
	write("lib/y", "one name of two")
	l.must(os.RemoveAll(at("opt/app")))
	l.must(os.Mkdir(at("opt/app"), 0o755))
	write("opt/app/two", "again")
	write("opt/app/same", "same")
	l.must(os.Chmod(at("opt/app/same"), 0o644))
	l.must(os.Chtimes(at("opt/app/same"), date, date))
	l.must(os.Remove(at("gone")))
	l.must(os.RemoveAll(at("gone-dir")))
	l.must(os.RemoveAll(at("to-file")))
	write("to-file", "a file now")
	l.must(os.Remove(at("to-dir")))
	l.must(os.Mkdir(at("to-dir"), 0o711))
	write("to-dir/f", "in it")
	// A link that leads out of the root becomes a directory with a name that is there, too.
	l.must(os.Remove(at("var/out")))
	l.must(os.Mkdir(at("var/out"), 0o755))
	write("var/out/proc", "not that one")
	l.must(os.Symlink("b", at("etc/new-link")))
	l.must(unix.Mkfifo(at("etc/fifo"), 0o600))
	l.must(unix.Mknod(at("etc/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	l.must(os.MkdirAll(at("deep/er/still"), 0o755))
}

// container mounts an overlay, has it changed, and returns the mounts of both trees.
func (l *lab) container(options string, change func(root string)) (lower, upper []mount.Mount) {
	l.t.Helper()
	one, two := l.folder("one"), l.folder("two")
	l.apply(l.convert(layertest.Tar(l.t, base()...)), bind(one))
	l.apply(l.convert(layertest.Tar(l.t, text("etc/b", "second"), text(".wh.none", ""))), l.overlay(two, one))
	up := l.folder("up")
	lower, upper = l.overlay("", two, one), l.overlay(up, two, one)
	if options != "" {
		upper[0].Options = append(upper[0].Options, strings.Split(options, ",")...)
	}
	merged := l.folder("merged")
	unmount := l.mount("overlay", merged, "overlay", strings.Join(upper[0].Options, ","))
	change(merged)
	unmount()
	return lower, upper
}

// stock is the tar that containerd makes of the changes.
func (l *lab) stock(lower, upper []mount.Mount, opts ...archive.WriteDiffOpt) []byte {
	l.t.Helper()
	var b bytes.Buffer
	l.mounted(lower, func(lowerRoot string) {
		l.must(mount.WithReadonlyTempMount(l.t.Context(), upper, func(upperRoot string) error {
			return archive.WriteDiff(l.t.Context(), &b, lowerRoot, upperRoot, opts...)
		}))
	})
	return b.Bytes()
}

// compare makes a layer and checks all that is said of it.
func (l *lab) compare(lower, upper []mount.Mount, opts ...diff.Opt) ocispec.Descriptor {
	l.t.Helper()
	desc, err := l.Compare(l.t.Context(), lower, upper, append(opts, diff.WithMediaType(mediatype.Layer))...)
	if err != nil {
		l.t.Fatalf("compare: %v\n%s", err, l.log)
	}
	x := l.open(desc.Digest)
	if desc.MediaType != mediatype.Layer || desc.Size != int64(len(x.Root.Data)) || desc.Annotations[mediatype.AnnotationRoot] != x.Root.Cid.String() {
		l.t.Errorf("descriptor %+v", desc)
	}
	info, err := l.store.Info(l.t.Context(), desc.Digest)
	l.must(err)
	if info.Size != desc.Size || info.Labels[labels.LabelUncompressed] != desc.Digest.String() {
		l.t.Errorf("content %+v", info)
	}
	pins, err := l.node.Pins(l.t.Context(), "ipcs:commit:"+desc.Digest.String())
	l.must(err)
	if len(pins) != 1 || !pins[0].Root.Equals(x.Root.Cid) {
		l.t.Errorf("pins %v", pins)
	}
	return desc
}

// wantTar compares the tar of a layer with containerd's.
func (l *lab) wantTar(desc ocispec.Descriptor, want []byte) {
	l.t.Helper()
	got := l.tarOf(desc.Digest)
	if d := digest.FromBytes(got).String(); d != desc.Annotations[mediatype.AnnotationDiffID] {
		l.t.Errorf("the tar is %s, the annotation says %s", d, desc.Annotations[mediatype.AnnotationDiffID])
	}
	if !bytes.Equal(want, got) {
		w, g := entries(l.t, want), entries(l.t, got)
		l.t.Errorf("containerd's tar differs (same order: %t):\n%s", lines(w, g) == "" && slices.Equal(w, g), lines(w, g))
	}
}

// TestCompare finds that what the upper directory tells is what containerd finds by walking
// both trees.
func TestCompare(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("", l.edit)
	want := l.stock(lower, upper)
	desc := l.compare(lower, upper)
	l.wantTar(desc, want)

	// Committed, it is the first directory of a view.
	view := l.overlay("", l.path("up"), l.path("two"), l.path("one"))
	if again := l.compare(lower, view); again.Digest != desc.Digest {
		t.Errorf("a view gives layer %s, the active snapshot %s", again.Digest, desc.Digest)
	}
	epoch := time.Unix(5e8, 0).UTC()
	l.wantTar(l.compare(lower, upper, diff.WithSourceDateEpoch(&epoch)), l.stock(lower, upper, archive.WithSourceDateEpoch(&epoch)))
	if strings.Contains(l.log.String(), whole) {
		t.Errorf("the upper directory was not used:\n%s", l.log)
	}

	// Unpacked on the lower layers, it is what the container had.
	committed := l.folder("committed")
	l.apply(desc, l.overlay(committed, l.path("two"), l.path("one")))
	l.mounted(l.overlay("", committed, l.path("two"), l.path("one")), func(got string) {
		l.mounted(view, func(want string) { l.sameButTimes(want, got) })
	})
}

// sameButTimes compares two trees. A tar of containerd has whole seconds, no attributes but
// capabilities, and breaks links to lower files.
func (l *lab) sameButTimes(want, got string) {
	l.t.Helper()
	list := func(root string) (all []string) {
		l.must(filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil // a whiteout that hides nothing
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			l.must(err)
			var body []byte
			if d.Type().IsRegular() {
				body, err = os.ReadFile(path)
				l.must(err)
			}
			rel, err := filepath.Rel(root, path)
			l.must(err)
			all = append(all, rel+" "+info.Mode().String()+" "+digest.FromBytes(body).String())
			return nil
		}))
		return all
	}
	if diff := lines(list(want), list(got)); diff != "" {
		l.t.Errorf("what was committed differs from what was changed:\n%s", diff)
	}
}

// TestCompareMetacopy reads a file of which only the metadata is in the upper directory.
func TestCompareMetacopy(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("metacopy=on,redirect_dir=on", func(root string) {
		l.must(os.Chmod(filepath.Join(root, "bin/tool"), 0o700))
	})
	if _, err := unix.Lgetxattr(l.path("up/bin/tool"), "trusted.overlay.metacopy", nil); err != nil {
		t.Fatalf("the kernel has copied up the content: %v", err)
	}
	l.wantTar(l.compare(lower, upper), l.stock(lower, upper))
	if strings.Contains(l.log.String(), whole) {
		t.Errorf("the upper directory was not used:\n%s", l.log)
	}
}

// TestCompareRenamed falls back to whole trees where the upper directory only says where
// something was.
func TestCompareRenamed(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("redirect_dir=on", func(root string) {
		l.must(os.Rename(filepath.Join(root, "renamed"), filepath.Join(root, "elsewhere")))
	})
	l.wantTar(l.compare(lower, upper), l.stock(lower, upper))
	if !strings.Contains(l.log.String(), whole) || !strings.Contains(l.log.String(), "was renamed") {
		t.Errorf("log:\n%s", l.log)
	}
}

// TestCompareRenamedMeanwhile makes no layer when a container that runs renames a directory
// after the upper directory was found to say all: of what is in it, that one has nothing.
func TestCompareRenamedMeanwhile(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("redirect_dir=on", func(root string) {
		big := make([]byte, 64<<20)
		rand.New(rand.NewSource(1)).Read(big)
		l.must(os.WriteFile(filepath.Join(root, "big"), big, 0o600))
		l.must(os.WriteFile(filepath.Join(root, "lib/new"), nil, 0o600))
	})
	merged := l.path("merged")
	l.mount("overlay", merged, "overlay", strings.Join(upper[0].Options, ","))
	var once sync.Once
	l.node.SetFault(func(op string, _ cid.Cid) (err error) {
		once.Do(func() { err = os.Rename(filepath.Join(merged, "lib/x"), filepath.Join(merged, "lib/elsewhere")) })
		return err
	})
	_, err := l.Compare(t.Context(), lower, upper, diff.WithMediaType(mediatype.Layer))
	l.node.SetFault(nil)
	if !errdefs.IsAborted(err) || !strings.Contains(err.Error(), "lib/elsewhere was renamed") {
		t.Errorf("%v, want that a directory was renamed", err)
	}
}

// TestCompareOtherMounts compares what is no overlay on the same directories.
func TestCompareOtherMounts(t *testing.T) {
	l := newLab(t)
	one, upper, empty := l.folder("one"), l.folder("upper"), l.folder("empty")
	l.apply(l.convert(layertest.Tar(t, base()...)), bind(one))
	l.apply(l.convert(layertest.Tar(t, text("bin/x", "x"), text(".wh.gone", ""))), l.overlay(upper, one))
	for name, c := range map[string]struct {
		lower, upper []mount.Mount
		whole        bool
	}{
		"first layer":       {bind(empty), bind(one), true},
		"on nothing":        {nil, bind(one), true},
		"second layer":      {bind(one), l.overlay("", upper, one), false},
		"native":            {bind(one), bind(upper), true},
		"another base":      {bind(empty), l.overlay("", upper, one), true},
		"index":             {bind(one), indexed(l.overlay(upper, one)), true},
		"a remount at last": {bind(one), append(l.overlay("", upper, one), mount.Mount{Type: "none", Source: "none", Options: []string{"remount"}}), false},
	} {
		l.log.Reset()
		l.wantTar(l.compare(c.lower, c.upper), l.stock(c.lower, c.upper))
		if got := strings.Contains(l.log.String(), whole); got != c.whole {
			t.Errorf("%s: whole trees were compared: %t, want %t", name, got, c.whole)
		}
	}
}

func indexed(mounts []mount.Mount) []mount.Mount {
	mounts[0].Options[0] = "index=on"
	return mounts
}

// TestCompareFails leaves no pin behind.
func TestCompareFails(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("", l.edit)
	broken := errors.New("the disk is full")
	for _, op := range []string{"put", "pin"} {
		l.node.SetFault(func(what string, _ cid.Cid) error {
			if what == op {
				return broken
			}
			return nil
		})
		_, err := l.Compare(t.Context(), lower, upper, diff.WithMediaType(mediatype.Layer))
		l.node.SetFault(nil)
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v, want %v", op, err, broken)
		}
	}
	if pins, err := l.node.Pins(t.Context(), ""); err != nil || len(pins) > 0 {
		t.Errorf("pins %v, %v", pins, err)
	}
	l.compare(lower, upper, diff.WithReference("mine"), diff.WithLabels(map[string]string{"a": "b"}))
}

// leaseCount counts leases.
type leaseCount struct{ made, ended int }

func (c *leaseCount) Create(context.Context, ...leases.Opt) (leases.Lease, error) {
	c.made++
	return leases.Lease{ID: fmt.Sprint(c.made)}, nil
}

func (c *leaseCount) Delete(context.Context, leases.Lease, ...leases.DeleteOpt) error {
	c.ended++
	return nil
}

// TestCompareLease finds that a lease is made where the caller has none, and that it ends
// when there is nothing to keep.
func TestCompareLease(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("", l.edit)
	count := new(leaseCount)
	differ, err := unpack.New(unpack.Config{Node: l.node, Content: l.store, Leases: count})
	l.must(err)
	for _, c := range []struct {
		mediaType string
		ctx       context.Context
		leaseCount
	}{
		{mediatype.Layer, t.Context(), leaseCount{1, 0}},
		{mediatype.Layer, leases.WithLease(t.Context(), "mine"), leaseCount{0, 0}},
		{"application/x", t.Context(), leaseCount{1, 1}},
		{ocispec.MediaTypeImageLayer, t.Context(), leaseCount{1, 0}},
	} {
		*count = leaseCount{}
		_, err := differ.Compare(c.ctx, lower, upper, diff.WithMediaType(c.mediaType))
		if failed := c.ended > 0; (err != nil) != failed || *count != c.leaseCount {
			t.Errorf("%s: %+v, want %+v: %v", c.mediaType, *count, c.leaseCount, err)
		}
	}
}

// TestCompareOrdinary makes what containerd makes, when no ipcs layer is asked for.
func TestCompareOrdinary(t *testing.T) {
	l := newLab(t)
	lower, upper := l.container("", l.edit)
	want := digest.FromBytes(l.stock(lower, upper))
	for asked, made := range map[string]string{
		"": ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayer: ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,
	} {
		desc, err := l.Compare(t.Context(), lower, upper, diff.WithMediaType(asked))
		l.must(err)
		info, err := l.store.Info(t.Context(), desc.Digest)
		l.must(err)
		if diffID := info.Labels[labels.LabelUncompressed]; desc.MediaType != made || diffID != want.String() && desc.Digest != want {
			t.Errorf("%q: %+v of diffID %s, want %s of %s", asked, desc, diffID, made, want)
		}
	}
	if _, err := l.Compare(t.Context(), lower, upper, diff.WithMediaType("application/x")); !errdefs.IsNotImplemented(err) {
		t.Errorf("an unknown type: %v", err)
	}
}
