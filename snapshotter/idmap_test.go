//go:build linux

package snapshotter_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/snapshotter"
)

// mapped is how containerd's client says which ids a container with a user namespace has.
func mapped() snapshots.Opt {
	return snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotUIDMapping: "0:100000:65536", snapshots.LabelSnapshotGIDMapping: "0:200000:65536",
	})
}

// TestMapped compares containers with user namespaces on chains of every mix with those of
// the overlay snapshotter: as they are, after they worked, and after a restart.
func TestMapped(t *testing.T) {
	for _, kinds := range []string{"i", "ii", "io", "oi", "ioi", "oio", "o", "oo"} {
		t.Run(kinds, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			ipcs, plain := l.build(kinds, stack()[:len(kinds)])
			ikey, pkey := l.key("container"), l.key("container")
			mounts, err := l.Prepare(l.ctx, ikey, ipcs.parent, mapped())
			if err != nil {
				t.Fatal(err)
			}
			ipath := l.mount(mounts)
			if mounts, err = l.overlay.Prepare(l.ctx, pkey, plain.parent, mapped()); err != nil {
				t.Fatal(err)
			}
			ppath := l.mount(mounts)
			compareTrees(t, ipath, ppath)
			l.owned(filepath.Join(ipath, "etc/passwd"), 100003, 200004)
			if usage, err := l.Usage(l.ctx, ikey); err != nil || usage.Inodes > 2 {
				t.Errorf("usage is %+v (%v): the tree was copied", usage, err)
			}
			for _, path := range []string{ipath, ppath} {
				if err := change(path); err != nil {
					t.Fatal(err)
				}
			}
			compareTrees(t, ipath, ppath)
			l.restart()
			compareTrees(t, ipath, ppath)
			if mounts, err = l.Mounts(l.ctx, ikey); err != nil {
				t.Fatal(err)
			}
			if err := unix.Unmount(ipath, 0); err != nil {
				t.Fatal(err)
			}
			compareTrees(t, l.mount(mounts), ppath)
			if err := l.Remove(l.ctx, ikey); err != nil {
				t.Fatal(err)
			}
			if left := mountsBelow(t, filepath.Join(l.config.State, "mapped")); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
		})
	}
}

func (l *lab) owned(path string, uid, gid uint32) {
	l.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		l.t.Fatal(err)
	}
	if st.Uid != uid || st.Gid != gid {
		l.t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, uid, gid)
	}
}

// TestMappedDeep has more directories than options of a mount hold, with two mappings of one
// chain and none beside each other.
func TestMappedDeep(t *testing.T) {
	const layers = 48
	l := newLab(t)
	var c chain
	for i := range layers {
		b := tarOf(t, []entry{file(fmt.Sprintf("layer-%d", i), "x", 0o644)})
		if i%2 == 0 {
			c = l.pull(c, l.convert(b))
		} else {
			c = l.extract(l.Snapshotter, c, b)
		}
	}
	for host, labels := range map[uint32]map[string]string{
		0:      nil,
		100000: {snapshots.LabelSnapshotUIDMapping: "0:100000:65536", snapshots.LabelSnapshotGIDMapping: "0:100000:65536"},
		200000: {snapshots.LabelSnapshotUIDMapping: "0:200000:65536", snapshots.LabelSnapshotGIDMapping: "0:200000:65536"},
	} {
		mounts, err := l.Prepare(l.ctx, l.key("container"), c.parent, snapshots.WithLabels(labels))
		if err != nil {
			t.Fatal(err)
		}
		path := l.mount(mounts)
		for _, i := range []int{0, 1, layers - 2, layers - 1} {
			l.owned(filepath.Join(path, fmt.Sprintf("layer-%d", i)), host+3, host+4)
		}
	}
}

// TestNoIDMap is on a host that cannot map ids: containers without user namespaces run, and
// others are refused with what to do.
func TestNoIDMap(t *testing.T) {
	l := newLab(t)
	l.PretendNoIDMap()
	ipcs, _ := l.build("i", stack()[:1])
	_, err := l.Prepare(l.ctx, l.key("container"), ipcs.parent, mapped())
	if !errors.Is(err, snapshotter.ErrNoIDMap) || !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "remap-ids") {
		t.Errorf("error is %v", err)
	}
	l.active(l.Snapshotter, ipcs.parent)
}

// TestRemapped prepares a container as containerd does without the capability remap-ids: on a
// snapshot that it has given other owners. They are not mapped a second time.
func TestRemapped(t *testing.T) {
	l := newLab(t)
	l.PretendNoIDMap()
	base, _ := l.build("i", stack()[:1])
	key, path := l.active(l.Snapshotter, base.parent)
	for _, name := range []string{"", "etc", "etc/passwd"} {
		if err := os.Lchown(filepath.Join(path, name), 100003, 200004); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Lchown(path, 100000, 200000); err != nil {
		t.Fatal(err)
	}
	remapped := l.commit(l.Snapshotter, key, "")
	mounts, err := l.Prepare(l.ctx, l.key("container"), remapped.parent, mapped())
	if err != nil {
		t.Fatal(err)
	}
	root := l.mount(mounts)
	l.owned(root, 100000, 200000)
	l.owned(filepath.Join(root, "etc/passwd"), 100003, 200004)
}
