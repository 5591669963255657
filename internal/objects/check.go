package objects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
)

// ErrClosed says that the store was closed meanwhile.
var ErrClosed = errors.New("store was closed")

// CheckOptions say what Check does.
type CheckOptions struct {
	// DryRun leaves everything as it is.
	DryRun bool
	// Progress is called now and then, from one goroutine at a time.
	Progress func(CheckProgress)
}

// CheckProgress says how far a check is. The totals are those of its beginning.
type CheckProgress struct {
	Objects      int64 `json:"objects"`
	Bytes        int64 `json:"bytes"`
	TotalObjects int64 `json:"total_objects"`
	TotalBytes   int64 `json:"total_bytes"`
}

// A CheckReport says what was checked and found.
type CheckReport struct {
	DryRun  bool  `json:"dry_run"`
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Blocks  int64 `json:"blocks"` // small ones, in the database
	// What was wrong, and was removed or mended unless it was a dry run.
	Damaged    []Damage `json:"damaged"`
	Dangling   int64    `json:"dangling"`   // references to objects that are not there
	Unlisted   int64    `json:"unlisted"`   // leaves of objects without a reference
	Leftovers  int64    `json:"leftovers"`  // partial files that nobody writes
	Unremoved  int64    `json:"unremoved"`  // of all this, what could not be removed
	Unreadable []Damage `json:"unreadable"` // left alone: the disk may recover
	// What pins need and this store has not, or has damaged.
	Lost []Loss `json:"lost"`
}

// Damage is an object or block that is wrong.
type Damage struct {
	Name   string `json:"name"` // its CID, as a rule
	Size   int64  `json:"size"`
	Reason string `json:"reason"`
}

// A Loss is what a pin needs and is not there.
type Loss struct {
	Root    string   `json:"root"`
	Pin     string   `json:"pin"`     // its name
	Blocks  int64    `json:"blocks"`  // how many
	Missing []string `json:"missing"` // the first few of them
}

// Wrong says whether anything was found.
func (r *CheckReport) Wrong() bool {
	return len(r.Damaged)+len(r.Unreadable)+len(r.Lost) > 0 || r.Dangling+r.Unlisted+r.Leftovers > 0
}

// Mended says whether nothing is wrong any more.
func (r *CheckReport) Mended() bool {
	return !r.Wrong() || !r.DryRun && r.Unremoved == 0 && len(r.Unreadable) == 0 && len(r.Lost) == 0
}

// checks are the calls of Check that are under way.
type checks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (c *checks) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Add(1)
	}
	return !c.closed
}

// wait waits for all, which have been told to end, and admits no more.
func (c *checks) wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}

// A check is one call of Check.
type check struct {
	store *Store
	opts  CheckOptions

	objects, bytes atomic.Int64

	mu     sync.Mutex
	report CheckReport
	bad    map[cid.Cid]bool // objects that are damaged and still there
}

// Check hashes every object and block, and compares references, partial files and pins with
// what is there. What is wrong is removed, so that it is fetched again when it is needed; of
// a damaged object the leaves that are right are kept. The store may be used meanwhile. A
// mounted overlay goes on to read a removed object until it is mounted again.
func (s *Store) Check(ctx context.Context, opts CheckOptions) (*CheckReport, error) {
	if !s.checks.begin() {
		return nil, fmt.Errorf("check store %s: %w", s.dir, ErrClosed)
	}
	defer s.checks.wg.Done()
	c := &check{store: s, opts: opts, bad: make(map[cid.Cid]bool)}
	c.report = CheckReport{DryRun: opts.DryRun, Damaged: []Damage{}, Unreadable: []Damage{}, Lost: []Loss{}}
	stop := c.tell()
	defer stop()
	for _, step := range []func(context.Context) error{c.all, c.blocks, c.references, c.leftovers, c.pins} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("check store %s: %w", s.dir, err)
		}
	}
	c.report.Objects, c.report.Bytes = c.objects.Load(), c.bytes.Load()
	return &c.report, nil
}

// tell calls Progress until stop is called.
func (c *check) tell() (stop func()) {
	if c.opts.Progress == nil {
		return func() {}
	}
	total := c.store.Stats()
	report := func() {
		c.opts.Progress(CheckProgress{c.objects.Load(), c.bytes.Load(), total.Objects, total.Bytes})
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				report()
				return
			case <-ticker.C:
				report()
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// stopped returns why the check has to end.
func (c *check) stopped(ctx context.Context) error {
	if c.store.isClosing() {
		return ErrClosed
	}
	return ctx.Err()
}

// all hashes the objects, on all cores.
func (c *check) all(ctx context.Context) error {
	type object struct {
		path string
		info os.FileInfo
	}
	todo := make(chan object)
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			h := &hasher{read: func(n int) error {
				c.bytes.Add(int64(n))
				return c.stopped(ctx)
			}}
			for o := range todo {
				if err := c.object(h, o.path, o.info); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(todo)
		return c.store.walk(time.Time{}, func(path string, info os.FileInfo) error {
			select {
			case todo <- object{path, info}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return g.Wait()
}

// object hashes one object, and removes it if it is wrong.
func (c *check) object(h *hasher, path string, info os.FileInfo) error {
	f, err := h.hash(path)
	c.objects.Add(1)
	if rel, rerr := filepath.Rel(c.store.ObjectsDir(), path); err == nil && (rerr != nil || rel != Path(f.Cid)) {
		err = fmt.Errorf("it lies in the wrong folder: %w", ipfs.ErrHash)
	}
	switch {
	case errors.Is(err, os.ErrNotExist): // evicted meanwhile
		return nil
	case err == nil:
		return c.listed(f)
	case errors.Is(err, ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	damage := Damage{filepath.Base(path), info.Size(), err.Error()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !isWrong(err) {
		c.report.Unreadable = append(c.report.Unreadable, damage)
		c.bad[f.Cid] = true
		return nil
	}
	c.report.Damaged = append(c.report.Damaged, damage)
	switch {
	case c.opts.DryRun:
		c.bad[f.Cid] = true
	case !c.store.removeDamaged(path, f, cmp.Or(h.info, info), err):
		c.bad[f.Cid] = true
		c.report.Unremoved++
	}
	return nil
}

// removeDamaged removes a damaged object, as it was when it was hashed, and says whether it is
// gone. What it holds of good leaves is kept.
func (s *Store) removeDamaged(path string, f ipfs.File, info os.FileInfo, why error) bool {
	if f.Cid.Defined() && path == s.objectPath(f.Cid) {
		if file, err := os.Open(path); err == nil {
			if !isRaw(f.Cid) {
				s.salvage(file, f.Cid, info.Size())
			}
			_ = file.Close() // it was only read
		}
		s.discard(f.Cid, info, why)
		now, err := os.Lstat(path)
		return errors.Is(err, os.ErrNotExist) || err == nil && !sameContent(now, info)
	}
	if err := os.RemoveAll(path); err != nil {
		return false
	}
	s.log.Warn("removed what is no object from the objects", "path", path, "reason", why)
	if s.recount.Store(true); f.Cid.Defined() {
		s.account(-1, info.Size())
	}
	return true
}
