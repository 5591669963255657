//go:build linux

package unpack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/layer"
)

// checkEvery is after how many entries a loop that starts no request looks whether it is
// still wanted.
const checkEvery = 1024

// An extraction unpacks one index into one directory. Its fields do not change while
// workers run, but for what says so.
type extraction struct {
	index    *layer.Index
	source   layer.Source
	target   target
	workers  int
	held     *semaphore.Weighted
	progress *progress
	log      *slog.Logger

	root  *os.Root         // target.dir, for what has to be removed
	fd    int              // likewise, for system calls
	moved map[int32]string // where implied directories are that are symbolic links: paths below the root, without such
	// mtimes are those that implied directories get when all in them was made. Neither map
	// changes while workers read it: moved when a walk begins, and this is the walk's alone.
	mtimes map[int32]unix.Timespec
}

// extract unpacks an index into a directory and, if asked for, writes that to disk.
func (d *Differ) extract(ctx context.Context, x *layer.Index, to target, syncFs bool, p *progress) error {
	root, err := os.OpenRoot(to.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	top, err := root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	e := &extraction{
		index: x, source: d.node, target: to, workers: d.workers, held: d.held, progress: p, log: d.log,
		root: root, fd: int(top.Fd()), moved: make(map[int32]string), mtimes: make(map[int32]unix.Timespec),
	}
	if err := e.run(ctx); err != nil {
		return err
	}
	if syncFs {
		if err := unix.Syncfs(e.fd); err != nil {
			return fmt.Errorf("sync %s: %w", to.dir, err)
		}
	}
	return nil
}

// run does one step after the other; only files are written while the walk goes on. What
// lies behind symbolic links comes one link at a time, when all else is there: two paths may
// lead to one place, and no two goroutines must work on one. The last one wins.
func (x *extraction) run(ctx context.Context) error {
	for tops := []int32{0}; len(tops) > 0; tops = tops[1:] {
		behind, err := x.fill(ctx, tops[0])
		if err != nil {
			return err
		}
		tops = append(tops, behind...)
	}
	if err := x.makeLinks(ctx); err != nil {
		return err
	}
	return x.finishDirs(ctx)
}

// fill makes an entry and what is below it, but for directories and hard links as they are
// at last. It returns the implied directories that are symbolic links, of which nothing was
// done.
func (x *extraction) fill(ctx context.Context, top int32) (behind []int32, err error) {
	group, gctx := errgroup.WithContext(ctx)
	jobs := make(chan job)
	group.Go(func() error {
		defer close(jobs)
		var err error
		behind, err = x.walk(gctx, top, jobs)
		return err
	})
	for range x.workers {
		group.Go(func() error { return x.work(gctx, jobs) })
	}
	err = group.Wait()
	return behind, err
}

// walk makes everything from an entry down but regular files and hard links, and hands the
// files to the workers.
func (x *extraction) walk(ctx context.Context, top int32, jobs chan<- job) (behind []int32, err error) {
	dirs := newDirs(x)
	defer dirs.close()
	b := batch{jobs: jobs}
	first, end := top, x.end(top)
	if top == 0 {
		first = 1
		if x.index.Entries[0].Opaque {
			if err := x.makeOpaque(x.fd, 0); err != nil {
				return nil, fmt.Errorf("opaque root: %w", err)
			}
		}
	}
	for i := first; i < end; i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e := &x.index.Entries[i]
		switch {
		case e.Link >= 0:
		case e.Mode.IsRegular() && !e.Whiteout:
			if err := b.add(ctx, i, e); err != nil {
				return nil, err
			}
		case e.Implied && i != top && x.isLink(dirs, i):
			behind = append(behind, i)
			i = x.end(i) - 1
		default:
			if err := x.makeOther(dirs, i); err != nil {
				return nil, x.at(i, err)
			}
		}
	}
	return behind, b.flush(ctx)
}

// end returns the entry after an entry and all below it.
func (x *extraction) end(i int32) int32 {
	end := i + 1
	for int(end) < len(x.index.Entries) && x.index.Entries[end].Parent >= i {
		end++
	}
	return end
}

// makeOther makes an entry that is neither a regular file nor a hard link.
func (x *extraction) makeOther(dirs *dirs, i int32) error {
	e := &x.index.Entries[i]
	dir, err := dirs.open(e.Parent)
	if err != nil {
		return err
	}
	switch {
	case e.Whiteout:
		return x.whiteout(dir, i)
	case e.Mode.IsDir():
		return x.makeDir(dir, i)
	}
	return x.makeNode(dir, i)
}

// whiteout hides what lies below at the path of an entry: with a character device 0:0,
// where overlayfs reads it; elsewhere, by removing it.
func (x *extraction) whiteout(dir int, i int32) error {
	if !x.target.overlay {
		return x.remove(dir, i)
	}
	return x.place(dir, i, func() error {
		return unix.Mknodat(dir, x.index.Entries[i].Name, unix.S_IFCHR, 0)
	})
}

// makeLinks makes the hard links, when all that they name is there.
func (x *extraction) makeLinks(ctx context.Context) error {
	from, to := newDirs(x), newDirs(x)
	defer from.close()
	defer to.close()
	for i := int32(1); int(i) < len(x.index.Entries); i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := &x.index.Entries[i]
		if e.Link < 0 {
			continue
		}
		if err := x.makeLink(from, to, i); err != nil {
			return x.at(i, err)
		}
	}
	return nil
}

func (x *extraction) makeLink(from, to *dirs, i int32) error {
	e := &x.index.Entries[i]
	old := &x.index.Entries[e.Link]
	if x.skipped(old) {
		return nil
	}
	oldDir, err := from.open(old.Parent)
	if err != nil {
		return err
	}
	dir, err := to.open(e.Parent)
	if err != nil {
		return err
	}
	err = x.place(dir, i, func() error { return unix.Linkat(oldDir, old.Name, dir, e.Name, 0) })
	if err != nil {
		return fmt.Errorf("link to %q: %w", x.index.Path(int(e.Link)), err)
	}
	return nil
}

// place makes a name. What is in its way is removed.
func (x *extraction) place(dir int, i int32, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := x.remove(dir, i); err != nil {
		return err
	}
	return create()
}

// remove removes what is at the path of an entry, with all that is in it.
func (x *extraction) remove(dir int, i int32) error {
	switch err := unix.Unlinkat(dir, x.index.Entries[i].Name, 0); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return fmt.Errorf("remove what is in the way: %w", err)
	}
	return x.root.RemoveAll(x.where(i))
}

// at names the path of an entry in an error.
func (x *extraction) at(i int32, err error) error {
	return fmt.Errorf("%q: %w", x.index.Path(int(i)), err)
}
