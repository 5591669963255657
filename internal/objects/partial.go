package objects

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync"
	"time"

	"github.com/hinshun/ipcs/internal/fdcache"
	"github.com/hinshun/ipcs/ipfs"
)

// ErrMissing says that leaves of a file are not here yet.
var ErrMissing = errors.New("leaves are missing")

// ErrAborted says that a Partial was given up.
var ErrAborted = errors.New("file was given up")

// ErrEvicted says that a file was evicted, after Commit or before.
var ErrEvicted = errors.New("file was evicted")

type partialState int

const (
	partialNew       partialState = iota // nothing on disk yet
	partialWriting                       // in partial/
	partialCommitted                     // an object
	partialAborted
)

// A Partial is a file that is being put together from its leaves, in any order. All
// methods are safe for concurrent use. Few of the many files that may be in the making
// are kept open, so each use of the file goes through the store's cache.
type Partial struct {
	store *Store
	file  ipfs.File

	mu    sync.Mutex
	state partialState
	path  string
	have  []uint64 // bit per leaf
	count int      // of leaves that are here
	round int      // counts the files that it had and that were evicted
	bytes int64    // on disk
	used  time.Time

	committing sync.Mutex
}

// Create begins a file. Its leaves must be proven to make its CID, or else one file
// could be written under the name of another: the error is ipfs.ErrFile, wrapped.
func (s *Store) Create(f ipfs.File) (*Partial, error) {
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("create object: %w", err)
	}
	return &Partial{store: s, file: f, have: make([]uint64, (f.NumLeaves()+63)/64)}, nil
}

// WriteLeaf verifies and writes leaf i, of which only one that is not verified yet is hashed.
// Writing one that is here is no error.
func (p *Partial) WriteLeaf(i int, leaf ipfs.Block) error {
	if err := p.store.withRoom(func() error { return p.writeLeaf(i, leaf) }); err != nil {
		return fmt.Errorf("write leaf %d of file %s: %w", i, p.file.Cid, noSpace(p.store.dir, err))
	}
	return nil
}

func (p *Partial) writeLeaf(i int, leaf ipfs.Block) error {
	if i < 0 || i >= p.file.NumLeaves() {
		return fmt.Errorf("%w: it has %d leaves", ipfs.ErrFile, p.file.NumLeaves())
	}
	if p.Have(i) {
		return nil
	}
	if len(leaf.Data) != p.file.LeafLen(i) {
		return fmt.Errorf("%w: leaf has %d bytes, want %d", ipfs.ErrFile, len(leaf.Data), p.file.LeafLen(i))
	}
	if want := p.file.Leaf(i); !leaf.Cid.Equals(want) {
		return fmt.Errorf("%w: %s is offered for %s", ipfs.ErrHash, leaf.Cid, want)
	}
	if err := leaf.Check(); err != nil {
		return err
	}
	var err error
	for range maxEmptied {
		if err = p.writeVerified(i, leaf.Data); !errors.Is(err, ErrEvicted) {
			break
		}
	}
	return err
}

func (p *Partial) writeVerified(i int, data []byte) error {
	h, round, err := p.acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	if p.Have(i) {
		return nil // and it may be an object by now, which is not written to
	}
	if err := writeSparse(h.File(), data, int64(i)*p.file.Layout.LeafSize(), p.file.Size); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.round != round {
		return ErrEvicted // the leaf went into a file that is gone
	}
	if w, bit := i/64, uint64(1)<<(i%64); p.have[w]&bit == 0 {
		p.have[w] |= bit
		p.count++
		if p.state == partialWriting {
			p.bytes += onDisk(int64(len(data)))
			p.store.grew(onDisk(int64(len(data))))
		}
	}
	return nil
}

// acquire opens the file, and makes it when there is none. It returns which of its files that
// is.
func (p *Partial) acquire() (h *fdcache.Handle[partKey], round int, err error) {
	p.mu.Lock()
	p.used = time.Now()
	round = p.round
	p.mu.Unlock()
	h, err = p.store.partials.Acquire(partKey{p, round}, func() (*os.File, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.round != round {
			return nil, ErrEvicted
		}
		switch p.state {
		case partialNew:
			return p.create()
		case partialWriting:
			return os.OpenFile(p.path, os.O_RDWR, 0)
		case partialCommitted:
			f, err := os.Open(p.path)
			if errors.Is(err, os.ErrNotExist) {
				err = ErrEvicted
			}
			return f, err
		default:
			return nil, ErrAborted
		}
	})
	return h, round, err
}

// create makes the file in its full size, all hole, but for a file of one leaf, which
// is written in one go.
func (p *Partial) create() (*os.File, error) {
	path := p.store.tempPath()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(err, p.store.removeTemp(path))
	}
	if p.file.NumLeaves() > 1 {
		if err := f.Truncate(p.file.Size); err != nil {
			return nil, errors.Join(err, f.Close(), p.store.removeTemp(path))
		}
	}
	p.path, p.state = path, partialWriting
	p.store.parts.add(p)
	return f, nil
}

// Have says whether leaf i is here.
func (p *Partial) Have(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return i >= 0 && i/64 < len(p.have) && p.have[i/64]&(1<<(i%64)) != 0
}

// Complete says whether all leaves are here.
func (p *Partial) Complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count == p.file.NumLeaves()
}

// Missing returns the numbers of the leaves that are not here.
func (p *Partial) Missing() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []int
	for w, have := range p.have {
		for lack := ^have; lack != 0; lack &= lack - 1 {
			i := w*64 + bits.TrailingZeros64(lack)
			if i >= p.file.NumLeaves() {
				return missing
			}
			missing = append(missing, i)
		}
	}
	return missing
}

// ReadAt reads from the leaves that are here, as io.ReaderAt does; the error is
// ErrMissing, wrapped, if it takes another, and ErrEvicted if the file is no longer there.
func (p *Partial) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= p.file.Size {
		return 0, io.EOF
	}
	if err := p.haveRange(off, int64(len(b))); err != nil {
		return 0, err
	}
	h, round, err := p.acquire()
	if err != nil {
		return 0, fmt.Errorf("read file %s: %w", p.file.Cid, err)
	}
	defer h.Release()
	p.mu.Lock()
	gone := p.round != round
	p.mu.Unlock()
	if gone { // what was found to be here is not in what was opened
		return 0, fmt.Errorf("read file %s: %w", p.file.Cid, ErrEvicted)
	}
	if err := p.haveRange(off, int64(len(b))); err != nil {
		return 0, err
	}
	n, err := h.File().ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read file %s: %w", p.file.Cid, err)
	}
	return n, err
}

// haveRange returns ErrMissing, wrapped, if not all leaves of a range are here.
func (p *Partial) haveRange(off, length int64) error {
	end := min(off+length, p.file.Size)
	each := p.file.Layout.LeafSize()
	for i := off / each; i*each < end; i++ {
		if !p.Have(int(i)) {
			return fmt.Errorf("read file %s: leaf %d: %w", p.file.Cid, i, ErrMissing)
		}
	}
	return nil
}

// Commit makes the complete file an object. The leaves of a file of several are then
// served out of it, and so are the dag-pb nodes above them. After an error Commit may
// be called again.
func (p *Partial) Commit() error {
	p.committing.Lock()
	defer p.committing.Unlock()
	if err := p.store.withRoom(p.commit); err != nil {
		return fmt.Errorf("finish file %s: %w", p.file.Cid, noSpace(p.store.dir, err))
	}
	return nil
}

func (p *Partial) commit() error {
	p.mu.Lock()
	state, path, count := p.state, p.path, p.count
	p.mu.Unlock()
	if state == partialCommitted {
		return nil
	}
	if state == partialAborted {
		return ErrAborted
	}
	if n := p.file.NumLeaves(); count < n {
		return fmt.Errorf("%w: %d of %d", ErrMissing, n-count, n)
	}
	if err := p.enter(path); err != nil {
		return err
	}
	p.drop()
	p.store.markDirty()
	return nil
}

// enter makes the file an object, while nothing is evicted: the references into it are
// written first, and must not be taken for those into one that has just gone.
func (p *Partial) enter(path string) error {
	s := p.store
	s.gate.RLock()
	defer s.gate.RUnlock()
	loose, err := s.record(p.file)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, fetchedMode); err != nil {
		return err
	}
	if err := p.rename(path); err != nil {
		return err
	}
	if s.doomed.add(loose...); len(loose) > 0 {
		s.room.moved()
	}
	return nil
}

// rename makes the file an object. Whoever opens it meanwhile waits: it is always found
// under one of the two names.
func (p *Partial) rename(path string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// What becomes an object is counted as one: were it counted twice for a moment, others would be evicted for it.
	bytes := p.bytes
	p.bytes = 0
	p.store.parts.bytes.Add(-bytes)
	if err := p.store.place(path, p.file.Cid, p.file.Size, fetchedMode); err != nil {
		p.bytes = bytes
		p.store.parts.bytes.Add(bytes)
		return err
	}
	p.state, p.path = partialCommitted, p.store.objectPath(p.file.Cid)
	p.forgetLocked()
	return nil
}

// drop closes the file when nobody uses it.
func (p *Partial) drop() {
	p.mu.Lock()
	key := partKey{p, p.round}
	p.mu.Unlock()
	p.store.partials.Drop(key)
}

// Abort gives the file up and removes what there is of it. After Commit it does nothing.
func (p *Partial) Abort() error {
	p.committing.Lock()
	defer p.committing.Unlock()
	p.mu.Lock()
	state, path := p.state, p.path
	if state != partialCommitted {
		p.state = partialAborted
		p.forgetLocked()
	}
	p.mu.Unlock()
	p.drop()
	if state != partialWriting {
		return nil
	}
	if err := p.store.removeTemp(path); err != nil {
		return fmt.Errorf("give up file %s: %w", p.file.Cid, err)
	}
	return nil
}

// record writes down where the leaves of a file will be, and the nodes above them. It
// returns the digests of the leaves that also lie about loose.
func (s *Store) record(f ipfs.File) (loose []string, err error) {
	n := f.NumLeaves()
	if n == 1 {
		return nil, nil
	}
	seen := make(map[string]bool, n)
	entries := make([]entry, 0, n+n/ipfs.Width+1)
	for i := range n {
		leaf := f.Leaf(i)
		digest, _ := digestOf(leaf)
		if seen[digest] {
			continue
		}
		seen[digest] = true
		entries = append(entries, ref{f.Cid, i, f.Layout}.entry(digest))
		if _, err := os.Lstat(s.objectPath(leaf)); err == nil {
			loose = append(loose, digest)
			entries = append(entries, entry{bucketLoose, []byte(digest), []byte{}})
		}
	}
	_, err = f.Build(func(b ipfs.Block) error {
		digest, _ := digestOf(b.Cid)
		entries = append(entries, entry{bucketBlocks, []byte(digest), b.Data})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return loose, s.db.flush(entries...)
}
