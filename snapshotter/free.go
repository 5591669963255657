//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// freePause is how long no layer may have lost its last snapshot before files are freed:
// containerd removes the snapshots of an image one after the other.
const freePause = 2 * time.Second

// A freer frees the files of layers that no snapshot uses any more, but for those that
// another layer has, and their indexes. Before the last snapshot of a layer goes, a file is
// written that names the layer: what a process does not get to, the next one does. The file
// holds the layer's root, without which nobody would know what the layer has.
type freer struct {
	dir    string
	unused func(ctx context.Context, roots []cid.Cid) (objects []cid.Cid, done []cid.Cid)
	free   func(ctx context.Context, objects []cid.Cid, since time.Time) (int64, error)
	log    *slog.Logger
	pause  time.Duration

	mu       sync.Mutex
	roots    []cid.Cid
	removing map[cid.Cid]int // removals of snapshots that are under way
	wake     chan struct{}   // has an element when roots has

	stop context.CancelFunc // nil until start
	wg   sync.WaitGroup
}

// newFreer returns nil, on which all methods do nothing, if nothing is to be freed.
func newFreer(dir string, free func(context.Context, []cid.Cid, time.Time) (int64, error), unused func(context.Context, []cid.Cid) (objects, done []cid.Cid), log *slog.Logger) *freer {
	if free == nil {
		return nil
	}
	return &freer{dir: dir, unused: unused, free: free, log: log, pause: freePause, removing: make(map[cid.Cid]int), wake: make(chan struct{}, 1)}
}

// start frees until close, also what a process before has left. Of ctx only the values count.
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

// left returns the layers that a process before was to free, and their roots.
func (f *freer) left() (map[cid.Cid][]byte, error) {
	if f == nil {
		return nil, nil
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	found := make(map[cid.Cid][]byte)
	for _, e := range entries {
		path := filepath.Join(f.dir, e.Name())
		block, err := os.ReadFile(path)
		root, cerr := cid.Decode(e.Name())
		if err != nil || cerr != nil || ipfs.Verify(root, block) != nil { // torn by a power failure
			f.log.Info("files of a layer that is not used any more stay: its root is damaged", "root", e.Name())
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		found[root] = block
	}
	return found, nil
}

// remove says that a snapshot of a layer is about to be removed. done must be called when it
// was, or was not.
func (f *freer) remove(root cid.Cid, block []byte) (done func()) {
	if f == nil {
		return func() {}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removing[root]++
	if block != nil {
		if err := os.WriteFile(filepath.Join(f.dir, root.String()), block, 0o600); err != nil {
			f.log.Warn("files of a layer that is removed stay if this process ends soon", "root", root, "err", err)
		}
	}
	return func() {
		f.mu.Lock()
		if f.removing[root]--; f.removing[root] == 0 {
			delete(f.removing, root)
		}
		f.mu.Unlock()
		f.add(root)
	}
}

// add says that a layer may have lost its last snapshot.
func (f *freer) add(root cid.Cid) {
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
	since := time.Now()
	objects, done := f.unused(ctx, roots)
	var freed int64
	var err error
	if len(objects) > 0 {
		freed, err = f.free(ctx, objects, since)
	}
	if err != nil {
		if ctx.Err() == nil {
			f.log.Warn("cannot free files of layers that are not used any more; the next daemon tries again", "err", err)
		}
		return
	}
	if len(objects) > 0 {
		f.log.Info("freed files of layers that are not used any more", "layers", len(done), "objects", len(objects), "bytes", freed)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, root := range done {
		if f.removing[root] > 0 {
			continue // it is another's by now
		}
		if err := os.Remove(filepath.Join(f.dir, root.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
			f.log.Warn("cannot note that the files of a layer were freed", "root", root, "err", err)
		}
	}
}

// unusedObjects returns the files, and the blocks of the indexes, of layers, but for what a layer
// has that a snapshot uses, and the layers that are dealt with so.
//
// An image may be pulled meanwhile. The indexes of its layers stay: they are open here already, or
// are opened later, and then the store is told so (keeper). Files that it shares with a layer that
// has gone may go nevertheless, and are fetched again.
func (s *Snapshotter) unusedObjects(ctx context.Context, roots []cid.Cid) (objects, done []cid.Cid) {
	opened := s.opener.roots() // before those of snapshots, which they become
	live := s.files.roots()
	used := make(map[cid.Cid]bool, len(live))
	for _, root := range live {
		used[root] = true
	}
	var tables []*fileTable
	var gone []cid.Cid
	for _, root := range roots {
		if used[root] {
			done = append(done, root) // another snapshot has it
			continue
		}
		used[root] = true // once
		if opened[root] {
			continue // it is pulled again, or else the next process frees it
		}
		t, err := s.tableOf(ctx, root)
		if err != nil {
			s.log.Info("files of a layer that is not used any more stay: its index is not here", "root", root, "err", err)
			continue
		}
		tables, gone = append(tables, t), append(gone, root)
	}
	if len(tables) == 0 {
		return nil, done
	}
	shared, err := s.shares(ctx, live, tables)
	if err != nil {
		s.log.Info("files of layers that are not used any more stay: it is not known whether another layer has them", "err", err)
		return nil, done
	}
	for n, t := range tables {
		for i := range t.files {
			if !shared[n][i] {
				objects = append(objects, t.file(i).Cid)
			}
		}
		objects = append(objects, s.indexObjects(ctx, gone[n])...)
	}
	return objects, append(done, gone...)
}

// shares says of each file of each table whether one of the layers has it.
func (s *Snapshotter) shares(ctx context.Context, layers []cid.Cid, tables []*fileTable) ([][]bool, error) {
	shared := make([][]bool, len(tables))
	for n, t := range tables {
		shared[n] = make([]bool, len(t.files))
	}
	for _, root := range layers {
		l, err := s.tableOf(ctx, root)
		if err != nil {
			return nil, err
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
	return shared, nil
}

// indexObjects returns the leaves of a layer's index, as far as they are known here. If
// another layer has the same index, the store is told to keep them.
func (s *Snapshotter) indexObjects(ctx context.Context, root cid.Cid) (leaves []cid.Cid) {
	src := s.opener.reader()
	block, err := src.Get(ctx, root)
	if err != nil {
		return nil
	}
	l, err := layer.ParseRoot(ipfs.Block{Cid: root, Data: block})
	if err != nil {
		return nil
	}
	todo := []cid.Cid{l.IndexCid}
	for len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		if c.Prefix().Codec == cid.Raw {
			leaves = append(leaves, c)
			continue
		}
		data, err := src.Get(ctx, c)
		if err != nil {
			continue
		}
		links, err := ipfs.Links(ipfs.Block{Cid: c, Data: data})
		if err == nil {
			todo = append(todo, links...)
		}
	}
	return leaves
}

// tableOf returns the files of a layer, which are not known if no container has used it in
// this process. To the store it is no use of the layer.
func (s *Snapshotter) tableOf(ctx context.Context, root cid.Cid) (*fileTable, error) {
	if known := s.files.tables([]cid.Cid{root}); len(known) == 1 {
		return known[0], nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opener.timeout)
	defer cancel()
	_, index, err := layer.OpenEncoded(ctx, s.opener.reader(), root)
	if err != nil {
		return nil, err
	}
	return newFileTable(index)
}

// aboutToRemove notes which layer a snapshot is of, if it is of one. done must be called when
// it was removed, or was not.
func (s *Snapshotter) aboutToRemove(ctx context.Context, key string) (done func(), err error) {
	var id string
	var root cid.Cid
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		found, info, _, err := storage.GetInfo(ctx, key)
		if err != nil {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
		id = found
		if label := info.Labels[labelRoot]; label != "" {
			root, err = cid.Decode(label)
		}
		return err
	})
	if err != nil || !root.Defined() {
		return func() {}, err
	}
	block, err := os.ReadFile(s.rootPath(id))
	if err == nil {
		err = ipfs.Verify(root, block)
	}
	if err != nil {
		s.log.Info("files of a layer that is removed stay if this process ends soon: its root is not here", "root", root, "err", err)
		block = nil
	}
	return s.freer.remove(root, block), nil
}

// freeLeft begins to free, first what a process before has left.
func (s *Snapshotter) freeLeft(ctx context.Context) error {
	left, err := s.freer.left()
	if err != nil {
		return fmt.Errorf("find layers that are not used any more: %w", err)
	}
	k, ok := s.opener.src.(*keeper)
	for root, block := range left {
		if ok { // the process before may not have written it down
			k.put(ctx, ipfs.Block{Cid: root, Data: block})
		}
		s.freer.add(root)
	}
	s.freer.start(ctx)
	return nil
}

// retain counts an ipcs snapshot, the first link, as a user of its layer and its chain.
func (s *Snapshotter) retain(links []link) {
	s.files.retain(links[0].root)
	s.chains.retain(firstRun(links))
}

// release counts it no longer. A layer or chain without a user is forgotten.
func (s *Snapshotter) release(links []link) error {
	if root := links[0].root; s.files.release(root) {
		// From now on nothing keeps its index on this disk: who prepares it again is to see
		// to it that it is there.
		s.opener.forget([]cid.Cid{root})
	}
	return s.chains.release(firstRun(links))
}
