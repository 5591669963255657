//go:build linux

package snapshotter

// PretendMetacopy makes s mount as on a kernel before 6.16.
func (s *Snapshotter) PretendMetacopy() { s.support.metacopy = true }

// PretendUnsupported makes s believe that this host cannot mount ipcs layers.
func (s *Snapshotter) PretendUnsupported() { s.support.err = ErrUnsupported }
