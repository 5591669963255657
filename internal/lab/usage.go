package lab

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// tick is the unit of time in /proc: USER_HZ is 100 wherever Go runs.
const tick = time.Second / 100

// Resident returns the memory that the process holds, in bytes.
func (p *Process) Resident() (int64, error) { return p.memory(resident) }

// Peak returns the most memory that the process has held so far, in bytes.
func (p *Process) Peak() (int64, error) { return p.memory(peak) }

// ForgetPeak makes what the process holds now the most that it has held so far.
func (p *Process) ForgetPeak() error {
	if !p.running() {
		return fmt.Errorf("%s has ended", p.name)
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid()), []byte("5"), 0o200) // see proc(5)
}

// PeakOf returns the most memory that a process, of the lab or not, has held so far, in
// bytes.
func PeakOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return memory(text, peak)
}

// Lines of /proc/PID/status.
const (
	resident = "VmRSS"
	peak     = "VmHWM"
)

func (p *Process) memory(name string) (int64, error) {
	text, err := p.proc("status")
	if err != nil {
		return 0, err
	}
	n, err := memory(text, name)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	return n, nil
}

// memory returns a line of /proc/PID/status that is in kB, in bytes.
func memory(status []byte, name string) (int64, error) {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			var kilobytes int64
			_, err := fmt.Sscan(value, &kilobytes)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("no %s: the process has ended", name)
}

// CPU returns the time that all threads of the process have spent on processors since
// it started, in user mode and in the kernel, and so have the processes that it started
// and waited for: what containerd has others decompress or convert counts as its own.
func (p *Process) CPU() (time.Duration, error) {
	text, err := p.proc("stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything. Fields are numbered from 1, and the
	// first after the name is field 3; these are 14 to 17.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return 0, fmt.Errorf("%s: %d fields after the name in /proc/%d/stat", p.name, len(fields), p.pid())
	}
	var user, system, childrenUser, childrenSystem int64
	if _, err := fmt.Sscan(strings.Join(fields[11:15], " "), &user, &system, &childrenUser, &childrenSystem); err != nil {
		return 0, fmt.Errorf("%s: processor time: %w", p.name, err)
	}
	return time.Duration(user+system+childrenUser+childrenSystem) * tick, nil
}

// proc reads a file of the process in /proc.
func (p *Process) proc(file string) ([]byte, error) {
	// The number of a process that was waited for may be another's.
	if !p.running() {
		return nil, fmt.Errorf("%s has ended", p.name)
	}
	return os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid(), file))
}

// CPU is how long all processors of the host were busy, and idle, until some moment.
type CPU struct {
	busy, idle uint64 // ticks, of all cores together
}

// ReadCPU returns the CPU of now.
func ReadCPU() (CPU, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return CPU{}, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	// guest and guest_nice follow; both are part of user and nice.
	var user, nice, system, idle, iowait, irq, softirq, steal uint64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d",
		&user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		return CPU{}, fmt.Errorf("/proc/stat: %q: %w", line, err)
	}
	return CPU{busy: user + nice + system + irq + softirq + steal, idle: idle + iowait}, nil
}

// Busy returns the share of all cores' time from a to b in which they did something.
func (a CPU) Busy(b CPU) float64 {
	// iowait, as proc(5) says, may go backwards.
	busy, idle := float64(b.busy)-float64(a.busy), max(float64(b.idle)-float64(a.idle), 0)
	if busy+idle <= 0 {
		return 0
	}
	return busy / (busy + idle)
}
