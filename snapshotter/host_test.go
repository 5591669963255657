//go:build linux

package snapshotter_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/continuity/sysx"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/snapshotter"
)

// TestFallbacks mounts in each way that older kernels need.
func TestFallbacks(t *testing.T) {
	for name, mounts := range map[string]snapshotter.Mounts{
		"metacopy": {Data: snapshotter.DataMetacopy},
		"hidden":   {Data: snapshotter.DataHidden, Image: snapshotter.ImageLoop},
		"fuse":     {Image: snapshotter.ImageFuse},
		"served":   {Data: snapshotter.DataServed, Image: snapshotter.ImageFuse},
	} {
		for _, kinds := range []string{"i", "io", "oi", "ioi", "iii"} {
			t.Run(name+"/"+kinds, func(t *testing.T) {
				t.Parallel()
				testFallback(t, mounts, kinds)
			})
		}
	}
}

func testFallback(t *testing.T, mounts snapshotter.Mounts, kinds string) {
	l := newLab(t)
	l.config.Mounts = mounts
	l.restart()
	if err := l.Supported(); err != nil {
		hosttest.Lacking(t, err.Error())
	}
	ipcs, plain := l.build(kinds, stack()[:len(kinds)])
	compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
	l.work(len(kinds), &ipcs, &plain)
	compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
	for _, c := range l.Status() {
		if mounts.Data != "" && c.Data != mounts.Data || mounts.Image != "" && c.Mode != mounts.Image {
			t.Errorf("status is %+v, want %+v", c, mounts)
		}
	}
}

// TestHiddenName has an image with the name that the objects lie below, where that name is
// hidden: it is refused, and shown where it need not be.
func TestHiddenName(t *testing.T) {
	l := newLab(t)
	root := l.convert(tarOf(t, []entry{file(objects.Hidden, "mine", 0o644)}))
	l.config.Mounts.Data = snapshotter.DataHidden
	l.restart()
	labels, _ := layerLabels("", root)
	_, err := l.Prepare(l.ctx, l.key("extract-1"), "", snapshots.WithLabels(labels))
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Fatal(err)
	}
	c := chain{parent: l.names()[0]}
	if _, err := l.Prepare(l.ctx, l.key("c"), c.parent); !errors.Is(err, snapshotter.ErrUnsupported) {
		t.Errorf("error is %v, want %v", err, snapshotter.ErrUnsupported)
	}
	l.config.Mounts.Data = snapshotter.DataMetacopy
	l.restart()
	if err := l.Supported(); err != nil {
		hosttest.Lacking(t, err.Error())
	}
	if b, err := os.ReadFile(filepath.Join(l.view(l.Snapshotter, c.parent), objects.Hidden)); err != nil || string(b) != "mine" {
		t.Errorf("read %q, %v", b, err)
	}
}

// TestUnsupported is on a host that cannot mount ipcs layers: they are refused when they
// are pulled, and ordinary ones work.
func TestUnsupported(t *testing.T) {
	l := newLab(t)
	root := l.convert(tarOf(t, stack()[0]))
	l.PretendUnsupported()
	labels, _ := layerLabels("", root)
	_, err := l.Prepare(l.ctx, l.key("extract-1"), "", snapshots.WithLabels(labels))
	if !errors.Is(err, snapshotter.ErrUnsupported) || !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("error is %v, want %v", err, snapshotter.ErrUnsupported)
	}
	if names := l.names(); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	ordinary := l.extract(l.Snapshotter, chain{}, tarOf(t, stack()[0]))
	l.active(l.Snapshotter, ordinary.parent)
}

// TestOwners checks who owns the root of a container: the user that the labels map root
// to, or else root, whatever a layer's tar says of its root: containerd ignores that too.
func TestOwners(t *testing.T) {
	l := newLab(t)
	base := l.pull(chain{}, l.convert(tarOf(t, []entry{dir(".", 0o700), file("a", "a", 0o644)})))
	above := l.pull(base, l.convert(tarOf(t, []entry{file("b", "b", 0o644)})))
	for name, c := range map[string]struct {
		labels   map[string]string
		uid, gid uint32
	}{
		"root":   {nil, 0, 0},
		"mapped": {map[string]string{snapshots.LabelSnapshotUIDMapping: "0:5000:65536", snapshots.LabelSnapshotGIDMapping: "0:6000:65536"}, 5000, 6000},
	} {
		t.Run(name, func(t *testing.T) {
			mounts, err := l.Prepare(l.ctx, l.key("c"), above.parent, snapshots.WithLabels(c.labels))
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(l.mount(mounts))
			if err != nil {
				t.Fatal(err)
			}
			if owner := st.Sys().(*syscall.Stat_t); owner.Uid != c.uid || owner.Gid != c.gid {
				t.Errorf("owner is %d:%d, want %d:%d", owner.Uid, owner.Gid, c.uid, c.gid)
			}
		})
	}
	_, err := l.Prepare(l.ctx, l.key("c"), above.parent, snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotUIDMapping: "x"}))
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("error is %v", err)
	}
	if usage, err := l.Usage(l.ctx, above.parent); err != nil || usage.Size != 0 {
		t.Errorf("usage is %v (%v)", usage, err)
	}
}

// TestLongPath reads a file whose path is longer than the kernel takes in one piece. No
// oracle: stock containerd cannot unpack it.
func TestLongPath(t *testing.T) {
	const depth, body = 60, "at the bottom"
	l := newLab(t)
	name := strings.Repeat("d", 100)
	c := l.pull(chain{}, l.convert(tarOf(t, []entry{file(strings.Repeat(name+"/", depth)+"f", body, 0o644)})))
	_, path := l.active(l.Snapshotter, c.parent)
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err := errors.Join(err, unix.Close(at)); err != nil {
			t.Fatal(err)
		}
		at = next
	}
	fd, err := unix.Openat(at, "f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err := errors.Join(err, unix.Close(at)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "f")
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != body {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestOneDevice sees to it that what stays on one file system (tar --one-file-system,
// du -x) sees all of an image: folders, files of the image and files written above it.
func TestOneDevice(t *testing.T) {
	l := newLab(t)
	c := l.pull(chain{}, l.convert(tarOf(t, []entry{dir("d", 0o755), file("d/a", "a", 0o644)})))
	_, path := l.active(l.Snapshotter, c.parent)
	if err := os.WriteFile(filepath.Join(path, "d", "written"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var root unix.Stat_t
	if err := unix.Stat(path, &root); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/a", "d/written"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(path, name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Dev != root.Dev {
			t.Errorf("%s has device %x, its root %x", name, st.Dev, root.Dev)
		}
	}
}

// TestDevices opens devices and runs setuid files of an ipcs layer as a container would.
func TestDevices(t *testing.T) {
	l := newLab(t)
	script := file("bin/id", "#!/bin/sh\nexit 0\n", 0o4755)
	c := l.pull(chain{}, l.convert(tarOf(t, []entry{special('3', "null", ""), dir("bin", 0o755), script})))
	_, path := l.active(l.Snapshotter, c.parent)
	null, err := os.OpenFile(filepath.Join(path, "null"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := null.WriteString("x"); err != nil {
		t.Error(err)
	}
	if err := null.Close(); err != nil {
		t.Error(err)
	}
	process, err := os.StartProcess(filepath.Join(path, "bin/id"), []string{"id"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := process.Wait(); err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
}

// TestPlainPaths checks that what containerd applies a layer to has no path it would
// split, and that the merged parent goes when the last extraction is over.
func TestPlainPaths(t *testing.T) {
	l := newLab(t)
	base := l.pull(chain{}, l.convert(tarOf(t, stack()[0])))
	var keys []string
	for range 2 {
		key := l.key("extract-1 x")
		mounts, err := l.Prepare(l.ctx, key, base.parent)
		if err != nil {
			t.Fatal(err)
		}
		if options := strings.Join(mounts[0].Options, ","); len(mounts) != 1 || strings.Contains(options, ":") {
			t.Errorf("mounts are %v", mounts)
		}
		keys = append(keys, key)
	}
	merged := filepath.Join(l.config.State, "merged")
	if err := l.Commit(l.ctx, "committed", keys[0]); err != nil {
		t.Fatal(err)
	}
	if n := len(mountsBelow(t, merged)); n != 1 {
		t.Errorf("%d merged parents, want 1", n)
	}
	l.restart()
	if _, err := l.Mounts(l.ctx, keys[1]); err != nil {
		t.Fatal(err)
	}
	if n := len(mountsBelow(t, merged)); n != 1 {
		t.Errorf("%d merged parents after a restart, want 1", n)
	}
	if err := l.Remove(l.ctx, keys[1]); err != nil {
		t.Fatal(err)
	}
	if left := mountsBelow(t, merged); len(left) > 0 {
		t.Errorf("merged parents are left: %v", left)
	}
}

// TestMountLabel adds to the mounts of containers what containerd adds on hosts with
// SELinux. With SELinux all that they show has the label; without, the kernel takes the
// option with a remount only.
func TestMountLabel(t *testing.T) {
	const label = "system_u:object_r:usr_t:s0:c1,c2" // a type that every policy has
	l := newLab(t)
	c := l.pull(chain{}, l.convert(tarOf(t, []entry{dir("d", 0o755), file("d/a", "a", 0o644), special('2', "link", "d/a")})))
	active, err := l.Prepare(l.ctx, l.key("container"), c.parent)
	if err != nil {
		t.Fatal(err)
	}
	view, err := l.View(l.ctx, l.key("view"), c.parent)
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat("/sys/fs/selinux/enforce")
	selinux := err == nil
	t.Logf("SELinux: %t", selinux)
	for name, mounts := range map[string][]mount.Mount{"active": active, "view": view} {
		last := len(mounts) - 1
		var path string
		if selinux {
			for i := range mounts {
				mounts[i].Options = append(mounts[i].Options, fmt.Sprintf("context=%q", label))
			}
			path = l.mount(mounts)
		} else {
			path = l.mount(mounts)
			mounts[last].Options = append(mounts[last].Options, fmt.Sprintf("context=%q", label))
			if err := mounts[last].Mount(path); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		err := os.WriteFile(filepath.Join(path, "written"), []byte("x"), 0o600)
		if writable := err == nil; writable != (name == "active") {
			t.Errorf("%s: write: %v", name, err)
		}
		if selinux {
			labelled(t, path, label)
		}
	}
}

// labelled finds that all below a path has an SELinux label.
func labelled(t *testing.T, path, label string) {
	t.Helper()
	paths := 0
	err := filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		paths++
		value, err := sysx.LGetxattr(path, "security.selinux")
		if got := strings.TrimRight(string(value), "\x00"); err != nil || got != label {
			t.Errorf("%s has the label %q, %v", path, got, err)
		}
		return nil
	})
	if err != nil || paths < 4 {
		t.Errorf("%d paths, %v", paths, err)
	}
}
