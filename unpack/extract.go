//go:build linux

package unpack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

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

	root  *os.Root // target.dir, for what has to be removed
	fd    int      // likewise, for system calls
	moved moved
	kept  []keptTime // of implied directories, in the order of the index; the walk's alone
}

// keptTime is the time that an implied directory gets when all in it was made.
type keptTime struct {
	entry int32
	mtime unix.Timespec
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
		root: root, fd: int(top.Fd()),
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

// run does one step after the other; only files are written while the walk goes on.
func (x *extraction) run(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	jobs := make(chan job)
	group.Go(func() error {
		defer close(jobs)
		return x.walk(gctx, jobs)
	})
	for range x.workers {
		group.Go(func() error { return x.work(gctx, jobs) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := x.makeLinks(ctx); err != nil {
		return err
	}
	return x.finishDirs(ctx)
}

// walk makes everything but regular files and hard links, and hands the files to the
// workers.
func (x *extraction) walk(ctx context.Context, jobs chan<- job) error {
	dirs := newDirs(x)
	defer dirs.close()
	if x.index.Entries[0].Opaque {
		if err := x.makeOpaque(x.fd, 0); err != nil {
			return fmt.Errorf("opaque root: %w", err)
		}
	}
	b := batch{jobs: jobs}
	for i := int32(1); int(i) < len(x.index.Entries); i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := &x.index.Entries[i]
		switch {
		case e.Link >= 0:
		case e.Mode.IsRegular() && !e.Whiteout:
			if err := b.add(ctx, i, e); err != nil {
				return err
			}
		default:
			if err := x.makeOther(dirs, i); err != nil {
				return x.at(i, err)
			}
		}
	}
	return b.flush(ctx)
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

// moved says which implied directories are elsewhere: where a symbolic link of the layers
// below leads. The walk adds to it while workers read it.
type moved struct {
	mu sync.RWMutex
	to map[int32]string // by entry: a path below the root, without symbolic links
}

func (m *moved) set(i int32, to string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.to == nil {
		m.to = make(map[int32]string)
	}
	m.to[i] = to
}

func (m *moved) get(i int32) (string, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	to, ok := m.to[i]
	return to, ok
}
