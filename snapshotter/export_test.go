//go:build linux

package snapshotter

// PretendMetacopy makes s mount as on a kernel before 6.16.
func (s *Snapshotter) PretendMetacopy() { s.support.metacopy = true }

// PretendUnsupported makes s believe that this host cannot mount ipcs layers.
func (s *Snapshotter) PretendUnsupported() { s.support.err = ErrUnsupported }

// Recorded returns how many files were recorded of the container on a snapshot.
func (s *Snapshotter) Recorded(key string) int {
	s.recorder.mu.Lock()
	rec := s.recorder.running[key]
	s.recorder.mu.Unlock()
	if rec == nil {
		return 0
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return len(rec.files)
}

// Fills says whether files of an image with this annotation are all fetched.
func Fills(mode FillMode, annotation string) bool {
	s := &Snapshotter{fill: mode}
	return s.fills(&imageFiles{fill: annotation})
}
