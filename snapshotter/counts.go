//go:build linux

package snapshotter

import (
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
)

// A FillState says how far getting the files of an image ahead of need has come.
type FillState string

// The states, in their order.
const (
	FillUnused  FillState = "unused"  // no container uses the image
	FillOpening FillState = "opening" // its indexes are opened
	FillProfile FillState = "profile" // the files of its profile come
	FillAll     FillState = "filling" // all others come
	FillRetry   FillState = "retry"   // some could not be had: they are tried again later
	FillNone    FillState = "off"     // the others are not wanted
	FillDone    FillState = "done"    // all are here
)

// FillStates returns all states, with that first which an image in use begins in.
func FillStates() []FillState {
	return []FillState{FillOpening, FillProfile, FillAll, FillRetry, FillNone, FillDone, FillUnused}
}

// enter notes a state; the first is FillOpening.
func (im *imageFiles) enter(state FillState) {
	for i, s := range FillStates() {
		if s == state {
			im.state.Store(int32(i))
		}
	}
}

func (im *imageFiles) fillState() FillState { return FillStates()[im.state.Load()] }

// of returns an image that containers use and that has a layer, best one that ends in it.
func (a *ahead) of(root cid.Cid) (digest.Digest, FillState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	image, state := digest.Digest(""), FillUnused
	for _, im := range a.images {
		for i, r := range im.roots {
			if r.Equals(root) && (image == "" || i == 0) {
				image, state = im.chain, im.fillState()
			}
		}
	}
	return image, state
}

// Counts are what there is, and what came to be here otherwise than by fetching. They cost
// no look at files.
type Counts struct {
	Mounted int               // metadata images
	Layers  int               // that snapshots use
	Images  map[FillState]int // that containers use
	// SharedFiles and SharedBytes are those files of layers pulled since New that were on
	// this disk when the layer was pulled.
	SharedFiles, SharedBytes int64
}

// Counts returns them.
func (s *Snapshotter) Counts() Counts {
	c := Counts{Mounted: s.chains.mounted(), Layers: len(s.files.roots()), Images: make(map[FillState]int)}
	s.ahead.mu.Lock()
	for _, im := range s.ahead.images {
		c.Images[im.fillState()]++
	}
	s.ahead.mu.Unlock()
	c.SharedFiles, c.SharedBytes = s.shared.counts()
	return c
}

// mounted counts the metadata images that are mounted.
func (cs *chains) mounted() (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for id := range cs.all {
		if isImageMount(cs.mountPoint(id)) {
			n++
		}
	}
	return n
}

// shared counts the files of new layers that are on this disk already, since other images
// have them: behind whoever pulls, one layer after the other.
type shared struct {
	here  func(ipfs.File) bool
	files *fileSet

	mu           sync.Mutex
	closed       bool
	queue        []cid.Cid
	counting     bool // a goroutine counts
	count, bytes int64
	wg           sync.WaitGroup
}

// newShared returns nil, on which all methods do nothing, if nobody says what is here.
func newShared(here func(ipfs.File) bool, files *fileSet) *shared {
	if here == nil {
		return nil
	}
	return &shared{here: here, files: files}
}

// add has the files of a layer counted.
func (s *shared) add(root cid.Cid) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.queue = append(s.queue, root)
	if !s.counting {
		s.counting = true
		s.wg.Go(s.run)
	}
}

// run counts until nothing is left.
func (s *shared) run() {
	for {
		s.mu.Lock()
		if s.closed || len(s.queue) == 0 {
			s.counting = false
			s.mu.Unlock()
			return
		}
		root := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		distinct(s.files.tables([]cid.Cid{root}), nil, s.look)
	}
}

// look counts a file, and says whether to go on.
func (s *shared) look(f ipfs.File) bool {
	here := s.here(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if here {
		s.count++
		s.bytes += f.Size
	}
	return !s.closed
}

// close ends the counting and waits for it.
func (s *shared) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *shared) counts() (files, bytes int64) {
	if s == nil {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.bytes
}
