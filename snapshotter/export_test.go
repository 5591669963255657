//go:build linux

package snapshotter

import "github.com/ipfs/go-cid"

// PretendUnsupported makes s believe that this host cannot mount ipcs layers.
func (s *Snapshotter) PretendUnsupported() { s.support.err = ErrUnsupported }

// PretendNoIDMap makes s believe that this host cannot map ids.
func (s *Snapshotter) PretendNoIDMap() { s.support.ids = ErrNoIDMap }

// Knows says whether s has read an image record.
func (s *Snapshotter) Knows(image cid.Cid) bool {
	_, ok := s.opener.top(image)
	return ok
}

// Recorded returns how many files were recorded of the container on a snapshot.
// Of several recordings of it, the one with the fewest counts.
func (s *Snapshotter) Recorded(key string) int {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	least := -1
	for rec := range s.recorder.running {
		if rec.key == key {
			rec.mu.Lock()
			if n := len(rec.files); least < 0 || n < least {
				least = n
			}
			rec.mu.Unlock()
		}
	}
	return max(least, 0)
}

// Fills says whether files of an image with this annotation are all fetched.
func Fills(mode FillMode, annotation string) bool {
	s := &Snapshotter{fill: mode}
	return s.fills(hints{fill: annotation})
}

// MaxOrders is how many RecordProfile may wait for.
const MaxOrders = maxOrders
