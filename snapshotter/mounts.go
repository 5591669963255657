//go:build linux

package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// optionSlack is what mount options of an overlay may lack to a page: containerd changes
// longer ones, and fails on the two colons in ours.
const optionSlack = 512

// parallelLoads bounds how many layers of a chain are opened at a time.
const parallelLoads = 4

// lower is what an overlay lies on.
type lower struct {
	dirs    []string // metadata and ordinary layers, top first
	data    []string // data-only layers; none for ordinary chains
	options []string
}

// option returns the option of mount(2).
func (l *lower) option() string {
	return "lowerdir=" + strings.Join(append([]string{strings.Join(l.dirs, ":")}, l.data...), "::")
}

// fits says whether an overlay with these directories of its own fits a page of options.
func (l *lower) fits(own ...string) bool {
	size := len(l.option())
	for _, s := range append(own, l.options...) {
		size += len(s) + 1
	}
	return size < os.Getpagesize()-optionSlack
}

// lower mounts what a snapshot with these parents lies on, top first. With plain, the
// directories are paths that any program understands. It needs no transaction.
func (s *Snapshotter) lower(ctx context.Context, key string, links []link, plain bool) (*lower, error) {
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
	l.data = s.data
	if s.support.xino {
		l.options = append(l.options[:len(l.options):len(l.options)], xinoOption)
	}
	if ordinaryBelow || s.support.metacopy {
		l.options = append(l.options[:len(l.options):len(l.options)], metacopyOptions()...)
	}
	// The id of the snapshot is not known yet; no id is longer than a key of bolt.
	const someID = "18446744073709551615"
	if !plain && l.fits("workdir="+s.workPath(someID), "upperdir="+s.upperPath(someID)) {
		return l, nil
	}
	dir, err := s.merged.ensure(links[0].id, key, l)
	if err != nil {
		return nil, err
	}
	if plain {
		return &lower{dirs: []string{dir}, options: s.overlayOptions}, nil
	}
	// The options stay: a container may have begun with shorter paths, and with
	// metacopy=on in what it wrote.
	return &lower{dirs: []string{dir}, options: l.options}, nil
}

// mountRun mounts the EROFS of a run, after its files are known to the lazy file system.
func (s *Snapshotter) mountRun(ctx context.Context, r run) (string, error) {
	if s.support.err != nil {
		return "", s.support.err
	}
	if err := s.learn(ctx, r); err != nil {
		return "", err
	}
	return s.chains.ensure(ctx, r, s.mergeRun)
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
				s.learnFiles(root, l.Index)
			}
			return err
		})
	}
	return group.Wait()
}

// learnFiles makes the files of a layer known, and lets the lazy file system find out
// where another layer has claimed something else.
func (s *Snapshotter) learnFiles(root cid.Cid, x *layer.Index) {
	table, added := s.files.learn(root, x)
	if !added {
		return
	}
	s.lazy.Recheck(func(c cid.Cid) (f ipfs.File, ok bool) {
		i, ok := table.find(c)
		if ok {
			f = table.file(i)
		}
		return f, ok
	})
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
	var options []string
	if kind == snapshots.KindActive {
		options = append(options, "workdir="+s.workPath(id), "upperdir="+s.upperPath(id))
	} else if len(l.dirs) == 1 && len(l.data) == 0 {
		return bind(l.dirs[0], "ro")
	}
	options = append(options, l.option())
	overlay := mount.Mount{Type: "overlay", Source: "overlay", Options: append(options, l.options...)}
	if len(l.data) == 0 {
		return []mount.Mount{overlay}
	}
	return []mount.Mount{overlay, noMount()}
}

// noMount follows an overlay with data-only layers, so that containerd mounts that. Since
// 2.4 its clients read /etc/passwd from the directories of an overlay without mounting it,
// if that is the last of the mounts: they would fail on our two colons, and find the files
// of an EROFS to be all zeros. A remount that changes nothing is of a type they do not look
// into, and containerd's mount package, of any version, makes no system call for it.
func noMount() mount.Mount {
	return mount.Mount{Type: "none", Source: "none", Options: []string{"remount"}}
}

func bind(source, mode string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: source, Options: []string{mode, "rbind"}}}
}

func (s *Snapshotter) upperPath(id string) string {
	return filepath.Join(s.root, snapshotsDir, id, "fs")
}

func (s *Snapshotter) workPath(id string) string {
	return filepath.Join(s.root, snapshotsDir, id, "work")
}
