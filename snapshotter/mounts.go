//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/ipfs"
)

// optionSlack is what mount options of an overlay may lack to a page: containerd changes
// those that lack 512 bytes, and fails on the two colons in ours. On hosts with SELinux it
// adds a context before that.
const optionSlack = 512 + 256

// manyInodes is from how many inodes of an image on the memory that it took to mount it is
// given back to the system at once.
const manyInodes = 50_000

// parallelLoads bounds how many layers of a chain are opened at a time.
const parallelLoads = 4

// A use is what a snapshot is mounted for.
type use struct {
	plain bool    // containerd applies a layer to it: parents are paths that any program understands
	ids   mapping // of a container with a user namespace
}

// lower is what an overlay lies on.
type lower struct {
	dirs    []string // metadata and ordinary layers, top first
	data    []string // where the data of the metadata is; none for ordinary chains
	hide    string   // hides data, which are ordinary layers; "" where they are data-only layers
	options []string
	ids     []string // options that have containerd map the ids of an ordinary chain
}

// option returns the option of mount(2).
func (l *lower) option() string {
	if l.hide != "" {
		return "lowerdir=" + strings.Join(l.layers(), ":")
	}
	return "lowerdir=" + strings.Join(append([]string{strings.Join(l.dirs, ":")}, l.data...), "::")
}

// layers are the layers of the overlay that are no data-only layers, top first. The one that
// hides others is on top: overlayfs follows no redirect into what lies below a whiteout.
func (l *lower) layers() []string {
	if l.hide == "" {
		return l.dirs
	}
	return slices.Concat([]string{l.hide}, l.dirs, l.data)
}

// fits says whether an overlay with these directories of its own fits a page of options.
func (l *lower) fits(own ...string) bool {
	size := len(l.option())
	for _, s := range append(own, l.options...) {
		size += len(s) + 1
	}
	return size < os.Getpagesize()-optionSlack
}

// lower mounts what a snapshot with these parents lies on, top first. It needs no
// transaction.
func (s *Snapshotter) lower(ctx context.Context, key string, links []link, u use) (*lower, error) {
	l, err := s.lowerDirs(ctx, links)
	if err != nil {
		return nil, err
	}
	if len(l.data) == 0 {
		l.ids = u.ids.options()
		return l, nil
	}
	name := links[0].id
	if u.ids.isSet() {
		if err := s.mapLower(key, l, u.ids); err != nil {
			s.mapped.release(key)
			return nil, err
		}
		name += "-" + u.ids.name()
	}
	// The id of the snapshot is not known yet; no id is longer than a key of bolt.
	const someID = "18446744073709551615"
	if !u.plain && l.fits("workdir="+s.workPath(someID), "upperdir="+s.upperPath(someID)) {
		return l, nil
	}
	dir, err := s.merged.ensure(name, key, l.dirs, func(dir string) error { return mountMerged(dir, l) })
	if err != nil {
		s.mapped.release(key)
		return nil, err
	}
	if u.plain {
		return &lower{dirs: []string{dir}, options: s.overlayOptions}, nil
	}
	// The options stay: a container may have begun with shorter paths, and with
	// metacopy=on in what it wrote.
	return &lower{dirs: []string{dir}, options: l.options}, nil
}

// lowerDirs finds the layers and the options of an overlay, and mounts runs of ipcs layers.
func (s *Snapshotter) lowerDirs(ctx context.Context, links []link) (*lower, error) {
	l := &lower{options: s.overlayOptions}
	var lazy, ordinaryBelow bool
	for i := 0; i < len(links); {
		if !links[i].lazy() {
			l.dirs = append(l.dirs, s.upperPath(links[i].id))
			i++
			continue
		}
		r := firstRun(links[i:])
		dir, err := s.mountRun(ctx, r)
		if err != nil {
			return nil, err
		}
		l.dirs = append(l.dirs, dir)
		lazy, ordinaryBelow = true, ordinaryBelow || len(r.below) > 0
		i += len(r.roots)
	}
	if !lazy {
		return l, nil
	}
	if s.support.xino {
		l.options = append(l.options[:len(l.options):len(l.options)], xinoOption)
	}
	if s.support.data == DataServed {
		return l, nil // as if all layers were ordinary
	}
	l.data = s.data
	if s.support.data == DataHidden {
		l.hide = filepath.Join(s.root, hideDir)
	}
	if ordinaryBelow && attributesOf(l.options).namespace == user {
		return nil, fmt.Errorf("%w: an ipcs layer lies on an ordinary one, which takes mounts.data = %q in a user namespace", ErrUnsupported, DataServed)
	}
	if ordinaryBelow || s.support.data != DataOnly {
		l.options = append(l.options[:len(l.options):len(l.options)], metacopyOptions()...)
	}
	return l, nil
}

// mountRun mounts the EROFS of a run, after its files are known to the lazy file system. The
// indexes of its layers are not needed again after that.
func (s *Snapshotter) mountRun(ctx context.Context, r run) (string, error) {
	if s.support.err != nil {
		return "", s.support.err
	}
	inodes := 0 // of the image, if it is written now
	defer func() {
		s.opener.forget(r.roots)
		if inodes >= manyInodes {
			s.opener.release(ctx)
		}
	}()
	if err := s.learn(ctx, r); err != nil {
		return "", err
	}
	dir, err := s.chains.ensure(ctx, r, func(ctx context.Context, r run) (erofs.Tree, error) {
		tree, err := s.mergeRun(ctx, r)
		if err != nil {
			return nil, err
		}
		inodes = tree.Len()
		return tree, nil
	})
	if err != nil {
		return "", err
	}
	if err := s.findShown(ctx, r); err != nil {
		s.log.Info("it is not known which files of an image upper layers hide: all are counted", "chain", r.id, "err", err)
	}
	return dir, nil
}

// learn opens the layers of a run whose files are not known: after a restart, all.
func (s *Snapshotter) learn(ctx context.Context, r run) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLoads)
	for _, root := range r.roots {
		if s.files.known(root) {
			continue
		}
		group.Go(func() error {
			l, err := s.opener.open(ctx, root)
			if err == nil {
				err = s.learnFiles(root, l.table)
			}
			return err
		})
	}
	return group.Wait()
}

// learnFiles makes the files of a layer known, and lets the lazy file system find out
// where another layer has claimed something else.
func (s *Snapshotter) learnFiles(root cid.Cid, read func() (*fileTable, error)) error {
	table, added, err := s.files.learn(root, read)
	if err != nil || !added {
		return err
	}
	s.lazy.Recheck(func(c cid.Cid) (f ipfs.File, ok bool) {
		i, ok := table.find(c)
		if ok {
			f = table.file(i)
		}
		return f, ok
	})
	return nil
}

// mounts returns the mounts of an active snapshot or a view.
func (s *Snapshotter) mounts(kind snapshots.Kind, id string, l *lower) []mount.Mount {
	if len(l.dirs) == 0 {
		mode := "rw"
		if kind == snapshots.KindView {
			mode = "ro"
		}
		return bind(s.upperPath(id), mode)
	}
	options := slices.Clone(l.ids)
	if kind == snapshots.KindActive {
		options = append(options, "workdir="+s.workPath(id), "upperdir="+s.upperPath(id))
	} else if len(l.dirs) == 1 && len(l.data) == 0 {
		return bind(l.dirs[0], "ro", l.ids...)
	}
	options = append(options, l.option())
	overlay := mount.Mount{Type: "overlay", Source: "overlay", Options: append(options, l.options...)}
	if len(l.data) == 0 {
		return []mount.Mount{overlay}
	}
	return []mount.Mount{overlay, noMount(kind)}
}

// noMount follows an overlay with data-only layers, so that containerd mounts that. Since
// 2.4 its clients read /etc/passwd from the directories of an overlay without mounting it,
// if that is the last of the mounts: they would fail on our two colons, and find the files
// of an EROFS to be all zeros. A remount that changes nothing is of a type they do not look
// into, and containerd's mount package, of any version, makes no system call for it. Where
// the container has a label of SELinux, containerd adds it as an option to every mount, and
// the remount is done: it changes nothing either, if it says what the overlay is.
func noMount(kind snapshots.Kind) mount.Mount {
	m := mount.Mount{Type: "none", Source: "none", Options: []string{"remount"}}
	if kind == snapshots.KindView {
		m.Options = append(m.Options, "ro")
	}
	return m
}

func bind(source, mode string, options ...string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: source, Options: append(slices.Clone(options), mode, "rbind")}}
}

func (s *Snapshotter) upperPath(id string) string {
	return filepath.Join(s.root, snapshotsDir, id, "fs")
}

func (s *Snapshotter) workPath(id string) string {
	return filepath.Join(s.root, snapshotsDir, id, "work")
}
