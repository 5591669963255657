package bench

import (
	"errors"
	"time"

	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// A meter reads what a host takes from a moment on.
type meter struct {
	host     *system.Host
	received int64
	used     system.Usage
}

func newMeter(h *system.Host) (meter, error) {
	received, err1 := h.Machine.Received()
	used, err2 := h.Usage()
	return meter{h, received, used}, errors.Join(err1, err2)
}

// consumption is what a host took. What is of daemons is 0 where there is none.
type consumption struct {
	received  int64         // bytes over its link
	cpu       time.Duration // of containerd and the system's daemons
	daemonCPU time.Duration // of the daemons alone
	resident  int64         // memory of the daemons at the end
	grown     int64         // what that is more than at the start
	peak      int64         // the most memory of the daemons so far
	peakAll   int64         // the same with containerd
}

// read returns what the host took since the meter was made.
func (t meter) read() (consumption, error) {
	received, err1 := t.host.Machine.Received()
	used, err2 := t.host.Usage()
	return consumption{
		received:  received - t.received,
		cpu:       used.CPU - t.used.CPU,
		daemonCPU: used.DaemonCPU - t.used.DaemonCPU,
		resident:  used.Resident,
		grown:     used.Resident - t.used.Resident,
		peak:      used.Peak,
		peakAll:   used.PeakAll,
	}, errors.Join(err1, err2)
}
