//go:build linux

package snapshotter

import "github.com/ipfs/go-cid"

// PretendMetacopy makes s mount as on a kernel before 6.16.
func (s *Snapshotter) PretendMetacopy() { s.support.metacopy = true }

// PretendUnsupported makes s believe that this host cannot mount ipcs layers.
func (s *Snapshotter) PretendUnsupported() { s.support.err = ErrUnsupported }

// PretendNoIDMap makes s believe that this host cannot map ids.
func (s *Snapshotter) PretendNoIDMap() { s.support.ids = ErrNoIDMap }

// Knows says whether s has read an image record.
func (s *Snapshotter) Knows(image cid.Cid) bool {
	_, ok := s.opener.top(image)
	return ok
}
