package system

import (
	"errors"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// Served is what a server of a site has used.
type Served struct {
	CPU  time.Duration // since it was started
	Peak int64         // the most memory, in bytes, since it was started or ForgetPeaks
}

// Served returns it for every server that runs, in the order in which they were started.
func (s *Site) Served() ([]Served, error) {
	var all []Served
	for _, p := range s.processes() {
		cpu, err1 := p.CPU()
		peak, err2 := p.Peak()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		all = append(all, Served{cpu, peak})
	}
	return all, nil
}

// ForgetPeaks makes the memory that the servers hold now the most that they held.
func (s *Site) ForgetPeaks() error {
	var errs []error
	for _, p := range s.processes() {
		errs = append(errs, p.ForgetPeak())
	}
	return errors.Join(errs...)
}

func (s *Site) processes() []*lab.Process {
	all := []*lab.Process{s.Registry.Process}
	if s.daemon != nil {
		all = append(all, s.daemon.Process)
	}
	if s.kubo != nil {
		all = append(all, s.kubo.Process)
	}
	if s.spread != nil {
		for _, d := range s.spread.daemons {
			all = append(all, d.Process)
		}
	}
	return all
}
