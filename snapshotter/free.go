//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// freePause is how long no layer may have lost its last snapshot before files are freed:
// containerd removes the snapshots of an image one after the other.
const freePause = 2 * time.Second

// A freer frees the files of layers that no snapshot uses any more, but for those that
// another layer has. What a process does not get to when it ends stays, and ages.
type freer struct {
	unused func(ctx context.Context, roots []cid.Cid) ([]cid.Cid, error)
	free   func(ctx context.Context, files []cid.Cid) (int64, error)
	log    *slog.Logger
	pause  time.Duration

	mu    sync.Mutex
	roots []cid.Cid
	wake  chan struct{} // has an element when roots has

	stop context.CancelFunc // nil until start
	wg   sync.WaitGroup
}

// newFreer returns nil, on which all methods do nothing, if nothing is to be freed.
func newFreer(free func(context.Context, []cid.Cid) (int64, error), unused func(context.Context, []cid.Cid) ([]cid.Cid, error), log *slog.Logger) *freer {
	if free == nil {
		return nil
	}
	return &freer{unused: unused, free: free, log: log, pause: freePause, wake: make(chan struct{}, 1)}
}

// start frees until close. Of ctx only the values count.
func (f *freer) start(ctx context.Context) {
	if f == nil {
		return
	}
	ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	f.wg.Go(func() {
		timer := time.NewTimer(f.pause)
		timer.Stop()
		for {
			select {
			case <-f.wake:
				timer.Reset(f.pause)
			case <-timer.C:
				f.run(ctx)
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	})
}

// close ends it and waits.
func (f *freer) close() {
	if f != nil && f.stop != nil {
		f.stop()
		f.wg.Wait()
	}
}

// add says that a layer has lost its last snapshot.
func (f *freer) add(root cid.Cid) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.roots = append(f.roots, root)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run frees what can be freed.
func (f *freer) run(ctx context.Context) {
	f.mu.Lock()
	roots := f.roots
	f.roots = nil
	f.mu.Unlock()
	files, err := f.unused(ctx, roots)
	if err != nil {
		if ctx.Err() == nil {
			f.log.Info("files of layers that are not used any more stay until others need the space", "err", err)
		}
		return
	}
	freed, err := f.free(ctx, files)
	if err != nil && ctx.Err() == nil {
		f.log.Warn("cannot free files of layers that are not used any more", "err", err)
	}
	f.log.Info("freed files of layers that are not used any more", "layers", len(roots), "files", len(files), "bytes", freed)
}

// unusedFiles returns the files of layers that no layer has that a snapshot uses.
func (s *Snapshotter) unusedFiles(ctx context.Context, roots []cid.Cid) ([]cid.Cid, error) {
	live := s.files.roots()
	used := make(map[cid.Cid]bool, len(live))
	for _, root := range live {
		used[root] = true
	}
	var tables []*fileTable
	var shared [][]bool // of the files of each table: whether another layer has them
	for _, root := range roots {
		if used[root] {
			continue // again
		}
		t, err := s.tableOf(ctx, root)
		if err != nil {
			return nil, err
		}
		used[root] = true // once
		tables, shared = append(tables, t), append(shared, make([]bool, len(t.files)))
	}
	if len(tables) == 0 {
		return nil, nil
	}
	for _, root := range live {
		l, err := s.tableOf(ctx, root)
		if err != nil {
			return nil, fmt.Errorf("find out whether another layer has them: %w", err)
		}
		for i := range l.files {
			c := l.file(i).Cid
			for n, t := range tables {
				if at, ok := t.find(c); ok {
					shared[n][at] = true
				}
			}
		}
	}
	var files []cid.Cid
	for n, t := range tables {
		for i := range t.files {
			if !shared[n][i] {
				files = append(files, t.file(i).Cid)
			}
		}
	}
	return files, nil
}

// tableOf returns the files of a layer, which are not known if no container has used it in
// this process.
func (s *Snapshotter) tableOf(ctx context.Context, root cid.Cid) (*fileTable, error) {
	if known := s.files.tables([]cid.Cid{root}); len(known) == 1 {
		return known[0], nil
	}
	l, err := s.opener.open(ctx, root)
	if err != nil {
		return nil, err
	}
	defer s.opener.forget([]cid.Cid{root})
	return newFileTable(l.index)
}
