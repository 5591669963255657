// Package processors tells whether other programs want all the processors of this computer.
//
// It compares what the kernel has counted of all programs with what it has of this one, over
// the time between two looks. A look is taken when somebody asks, at most five times a second;
// after a pause in which nobody asked, the first answer is no, since what was before the pause
// says nothing of now.
//
// Concurrency: all methods may be called concurrently. There are no goroutines.
package processors

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const (
	// shortest and longest are between which two looks are apart that say something.
	shortest = 200 * time.Millisecond
	longest  = 3 * time.Second
	// most is the share of all processors' time that others may use before they are busy.
	most = 0.75
)

// A Meter knows how busy others are. Use New.
type Meter struct {
	look  func() (usage, error)
	clock func() time.Time

	mu   sync.Mutex // guards what follows
	last usage
	busy bool
}

// usage is what was used of all processors until a moment, in seconds of one of them.
type usage struct {
	at            time.Time // when that was asked for
	all, programs float64   // available, and used by programs
	own           float64   // used by this one
}

// New returns a Meter of this computer. It fails where /proc cannot be read.
func New() (*Meter, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, err
	}
	m := &Meter{look: func() (usage, error) { return look(proc) }, clock: time.Now}
	at := m.clock()
	m.last, err = m.look()
	m.last.at = at
	return m, err
}

// Busy says whether other programs used more than three quarters of all processors lately.
// What the kernel does for itself, for arriving packets among other things, is no program's.
func (m *Meter) Busy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.clock()
	since := at.Sub(m.last.at)
	if since < shortest {
		return m.busy
	}
	now, err := m.look()
	if err != nil {
		return false
	}
	now.at = at
	m.busy = since <= longest && now.others(m.last) > most
	m.last = now
	return m.busy
}

// others is the share of all processors that other programs used since before.
func (u usage) others(before usage) float64 {
	all := u.all - before.all
	if all <= 0 {
		return 0
	}
	return ((u.programs - before.programs) - (u.own - before.own)) / all
}

func look(proc procfs.FS) (usage, error) {
	stat, err := proc.Stat()
	if err != nil {
		return usage{}, err
	}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return usage{}, fmt.Errorf("getrusage: %w", err)
	}
	t := stat.CPUTotal
	programs := t.User + t.Nice + t.System // a guest's are part of User
	return usage{
		all:      programs + t.Idle + t.Iowait + t.IRQ + t.SoftIRQ, // not Steal: that is another computer's
		programs: programs,
		own:      seconds(own.Utime) + seconds(own.Stime),
	}, nil
}

func seconds(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
