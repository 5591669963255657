//go:build linux

package snapshotter_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/snapshotter"
)

// TestRestart opens the snapshotter again: containers that run go on, snapshots are all
// there, the image of the chain is not written anew, and no block is fetched from peers.
func TestRestart(t *testing.T) {
	l := newLab(t)
	ipcs, plain := l.build("iii", stack())
	key, running := l.active(l.Snapshotter, ipcs.parent)
	before := l.Status()
	image := l.imageOfChain(before[0])
	old, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(l.config.Root, "chains", "new-crashed")
	stale := filepath.Join(l.config.State, "chains", "stale")
	l.restart()
	compareTrees(t, running, l.view(l.overlay, plain.parent))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// What a process leaves that was killed:
	if err := errors.Join(os.WriteFile(leftover, nil, 0o600), os.MkdirAll(stale, 0o700), unix.Mount(image, stale, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	l.start()
	if left := mountsBelow(t, l.config.State); len(left) > 0 {
		t.Errorf("stale mounts are left: %v", left)
	}
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image that was not completed is left: %v", err)
	}
	mounts, err := l.Mounts(l.ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(running, 0); err != nil {
		t.Fatal(err)
	}
	compareTrees(t, l.mount(mounts), l.view(l.overlay, plain.parent))
	if now, err := os.Stat(image); err != nil || !os.SameFile(old, now) {
		t.Errorf("the image was written anew (%v)", err)
	}
	if after := l.Status(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("status is %v, was %v", after, before)
	}
}

// TestReboot finds an image of another boot, which a crash may have torn.
func TestReboot(t *testing.T) {
	l := newLab(t)
	ipcs, plain := l.build("i", stack()[:1])
	l.view(l.Snapshotter, ipcs.parent)
	dir := filepath.Join(l.config.Root, "chains")
	image := l.imageOfChain(l.Status()[0])
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.WriteFile(filepath.Join(dir, "boot"), []byte("another"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l.start()
	compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
}

func TestRemove(t *testing.T) {
	l := newLab(t)
	ipcs, _ := l.build("ioi", stack())
	key, path := l.active(l.Snapshotter, ipcs.parent)
	var files int
	for _, c := range l.Status() {
		for f := range l.ChainFiles(c.ID) {
			files++
			for got, path := range l.Claims(f.Cid) {
				if got != f || !strings.HasPrefix(path, "/") {
					t.Errorf("%s is %v with path %q", f.Cid, got, path)
				}
			}
		}
	}
	if files == 0 {
		t.Error("no files in any chain")
	}
	if err := errors.Join(unix.Unmount(path, 0), l.Remove(l.ctx, key)); err != nil {
		t.Fatal(err)
	}
	for name := ipcs.parent; name != ""; {
		info, err := l.Stat(l.ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Remove(l.ctx, name); err != nil {
			t.Fatal(err)
		}
		name = info.Parent
	}
	if names := l.names(); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	if images, _ := filepath.Glob(filepath.Join(l.config.Root, "chains", "*.erofs")); len(images) > 0 {
		t.Errorf("images are left: %v", images)
	}
	if left := mountsBelow(t, l.config.State); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	if status := l.Status(); len(status) > 0 {
		t.Errorf("status is %v", status)
	}
}

func TestCleanup(t *testing.T) {
	l := newLab(t)
	if err := l.Cleanup(l.ctx); err != nil {
		t.Errorf("where there was never a snapshot: %v", err)
	}
	ipcs, _ := l.build("i", stack()[:1])
	l.view(l.Snapshotter, ipcs.parent)
	junk := []string{filepath.Join(l.config.Root, "chains", "abc.erofs"), filepath.Join(l.config.Root, "snapshots", "999")}
	for _, path := range junk {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Cleanup(l.ctx); err != nil {
		t.Fatal(err)
	}
	for _, path := range junk {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	if status := l.Status(); len(status) != 1 || !status[0].Mounted {
		t.Errorf("status is %v", status)
	}
}

// TestLoop keeps chains on a tmpfs, from whose files the kernel mounts no EROFS, or only
// the mount points, as on most hosts.
func TestLoop(t *testing.T) {
	hosttest.Root(t)
	l := newLab(t)
	l.build("i", stack()[:1])
	otherwise := l.Status()[0].Mode // on kernels that mount no EROFS from a file, it is the loop as well
	for folder, want := range map[string]snapshotter.ImageMode{"root": snapshotter.ImageLoop, "state": otherwise} {
		t.Run(folder, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, folder)
			if err := errors.Join(os.Mkdir(path, 0o700), unix.Mount("tmpfs", path, "tmpfs", 0, "")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(path, 0); err != nil {
					t.Error(err)
				}
			})
			l := newLabIn(t, dir)
			ipcs, plain := l.build("iii", stack())
			compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
			if mode := l.Status()[0].Mode; mode != want {
				t.Errorf("mode is %q, want %q", mode, want)
			}
		})
	}
}

// TestManyLayers has more ordinary layers than the options of a mount can name.
func TestManyLayers(t *testing.T) {
	l := newLab(t)
	ipcs, plain := l.build("oi", stack()[:2])
	for i := range 110 {
		b := tarOf(t, []entry{file(fmt.Sprint("file", i), "x", 0o644), file("etc/passwd", fmt.Sprint(i), 0o644)})
		plain = l.extract(l.overlay, plain, b)
		ipcs = l.extract(l.Snapshotter, ipcs, b)
	}
	l.work(2, &ipcs, &plain)
	mounts, err := l.View(l.ctx, "long", ipcs.parent)
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, l.mount(mounts), l.view(l.overlay, plain.parent))
	if err := l.Remove(l.ctx, "long"); err != nil {
		t.Error(err)
	}
}

// TestReadonly mounts an active snapshot as containerd does to look into it.
func TestReadonly(t *testing.T) {
	l := newLab(t)
	for _, kinds := range []string{"i", "oi", "io"} {
		ipcs, plain := l.build(kinds, stack()[:len(kinds)])
		mounts, err := l.Prepare(l.ctx, l.key("container"), ipcs.parent)
		if err != nil {
			t.Fatal(err)
		}
		err = mount.WithReadonlyTempMount(l.ctx, mounts, func(root string) error {
			compareTrees(t, root, l.view(l.overlay, plain.parent))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]snapshotter.Config{
		"relative": {Root: "root", State: "/state", ObjectsDir: "/objects"},
		"colon":    {Root: "/a:b", State: "/state", ObjectsDir: "/objects"},
		"comma":    {Root: "/a", State: "/state,", ObjectsDir: "/objects"},
	} {
		if _, err := snapshotter.New(t.Context(), c, ipfstest.NewMemory(), noLazy); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	hosttest.Root(t)
	dir := t.TempDir()
	c := snapshotter.Config{Root: dir + "/root", State: dir + "/state", ObjectsDir: dir}
	want := errors.New("no fuse here")
	_, err := snapshotter.New(t.Context(), c, ipfstest.NewMemory(), func(string, snapshotter.Files) (snapshotter.Lazy, error) { return nil, want })
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// TestNotRoot runs itself as nobody.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		_, err := snapshotter.New(t.Context(), snapshotter.Config{Root: "/x", State: "/y", ObjectsDir: "/z"}, ipfstest.NewMemory(), noLazy)
		if !errors.Is(err, snapshotter.ErrNotRoot) {
			t.Errorf("error is %v, want %v", err, snapshotter.ErrNotRoot)
		}
		return
	}
	dir, err := os.MkdirTemp("", "not-root-") // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.run=^TestNotRoot$", "-test.v")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestNotRoot") {
		t.Errorf("%v\n%s", err, out)
	}
}

// imageOfChain is the file with the EROFS image of a chain.
func (l *lab) imageOfChain(c snapshotter.ChainStatus) string {
	kind := "data"
	if c.Data == snapshotter.DataHidden {
		kind = "hidden"
	}
	return filepath.Join(l.config.Root, "chains", c.ID+"."+kind+".erofs")
}

// TestTornPrepare: a process was killed when it had made the directory of a snapshot, and had not
// written down that there is one. The next snapshot has the same number.
func TestTornPrepare(t *testing.T) {
	l := newLab(t)
	for n := range 3 {
		torn := filepath.Join(l.config.Root, "snapshots", strconv.Itoa(n+1), "fs")
		if err := os.MkdirAll(torn, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(torn, "left"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		_, path := l.active(l.Snapshotter, "")
		if entries, err := os.ReadDir(path); err != nil || len(entries) != 0 {
			t.Errorf("a new snapshot has %v, %v", entries, err)
		}
	}
}
