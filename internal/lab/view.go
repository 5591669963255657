package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"
)

// A View is an image's root file system, mounted on the host as a container has it.
type View struct {
	Root string

	c           *Containerd
	snapshotter string
	key         string
	active      bool // in containerd's mount manager
}

// View mounts the root file system of an image that was pulled with the snapshotter,
// read-only.
func (c *Containerd) View(ctx context.Context, ref, snapshotter string) (*View, error) {
	return c.mount(ctx, ref, snapshotter, c.Client.SnapshotService(snapshotter).View)
}

// Writable mounts it with a directory for changes, as every container has.
func (c *Containerd) Writable(ctx context.Context, ref, snapshotter string) (*View, error) {
	return c.mount(ctx, ref, snapshotter, c.Client.SnapshotService(snapshotter).Prepare)
}

// snapshot is Prepare or View of a snapshotter.
type snapshot func(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error)

func (c *Containerd) mount(ctx context.Context, ref, snapshotter string, make snapshot) (*View, error) {
	ctx = c.Context(ctx)
	img, err := c.Client.GetImage(ctx, ref)
	if err != nil {
		return nil, err
	}
	diffIDs, err := img.RootFS(ctx)
	if err != nil {
		return nil, fmt.Errorf("view %s: %w", ref, err)
	}
	root, err := os.MkdirTemp(c.machine.run, "view-")
	if err != nil {
		return nil, err
	}
	v := &View{Root: root, c: c, snapshotter: snapshotter, key: filepath.Base(root)}
	mounts, err := make(ctx, v.key, identity.ChainID(diffIDs).String(),
		// or the garbage collector takes it
		snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "lab"}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("view %s: %w", ref, err), os.Remove(root))
	}
	if mounts, err = v.activate(ctx, mounts); err == nil {
		err = mount.All(mounts, root)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", ref, err), v.Close(ctx))
	}
	return v, nil
}

// activate has containerd mount what only it can, as it does before it starts a
// container, and returns what is left to mount. Most snapshotters return nothing of that
// kind.
func (v *View) activate(ctx context.Context, mounts []mount.Mount) ([]mount.Mount, error) {
	// These are kept as long as the snapshot.
	labels := map[string]string{"containerd.io/gc.bref.snapshot." + v.snapshotter: v.key}
	info, err := v.c.Client.MountManager().Activate(ctx, v.key, mounts, mount.WithLabels(labels))
	if errdefs.IsNotImplemented(err) {
		return mounts, nil
	}
	if err != nil {
		return nil, err
	}
	v.active = true
	return info.System, nil
}

// Unmount ends the mount, and leaves the snapshot.
func (v *View) Unmount() error { return mount.UnmountAll(v.Root, unix.UMOUNT_NOFOLLOW) }

// Key names the snapshot.
func (v *View) Key() string { return v.key }

// Close unmounts and removes the view. It goes on when ctx has ended.
func (v *View) Close(ctx context.Context) error {
	ctx, cancel := cleaning(v.c.Context(ctx))
	defer cancel()
	err := v.Unmount()
	if v.active {
		err = errors.Join(err, v.deactivate(ctx))
	}
	return errors.Join(
		err,
		v.c.Client.SnapshotService(v.snapshotter).Remove(ctx, v.key),
		os.Remove(v.Root),
	)
}

// deactivate has containerd unmount what activate had it mount. Its garbage collector may be
// faster: containerd forgets the mounts before it ends them, and what is forgotten is
// collected. It then says that they are not there, which is what was wanted.
func (v *View) deactivate(ctx context.Context) error {
	err := v.c.Client.MountManager().Deactivate(ctx, v.key)
	if err == nil {
		return nil
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.HasSuffix(strings.TrimSpace(line), unix.ENOENT.Error()) {
			return err
		}
	}
	return nil
}
