// Package lab makes machines out of network namespaces and runs stock containerd, a
// registry and the daemon of ipcs on them, for the demo, the benchmark and the
// end-to-end tests.
//
// A Lab is a folder for the machines' disks, one below /run for their sockets and
// mounts, and, if its links have a rate, a router: a namespace that all links lead to.
// A Machine is a namespace with one link to the router, limited with HTB in both
// directions; without a rate all machines share the host's loopback and differ in
// their ports. A namespace belongs to a process that sleeps in it, so nothing is
// mounted for it and it goes with that process. All processes stay in the mount
// namespace of the host, or the mounts of one would be hidden from the next.
//
// Every process is written to a state file before it can do anything. Close stops all
// in reverse order, and unmounts and removes what they left; Open does the same first
// for a run that was killed. A lock keeps two labs of one name apart.
//
// The kernel's own delay (netem) is not on every host: a Delay is a TCP proxy on a
// machine that adds a round-trip time to what goes through it.
//
// Only one goroutine at a time may call methods of Lab and Machine. The exceptions are
// Dial, Listen and Command, and what is done with containerds of different machines.
// Every Process has a goroutine that waits for it, and every Delay those of its
// connections; Close waits for all.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab/tools"
)

// Options say where a lab is and what its network is like.
type Options struct {
	Name string // tells labs apart; at most 8 letters and digits
	Dir  string // the machines' disks are put into it; overlayfs and EROFS must be able to use it
	// Rate is what each machine's link carries in each direction, in Mbit/s. With 0
	// there is no network: all machines share the loopback device.
	Rate  int
	Tools string // folder of containerd, ctr, runc, registry
	Bin   string // folder of convert and ipcs-snapshotter
	Log   func(format string, args ...any)
}

// A Lab is a set of machines.
type Lab struct {
	opts      Options
	disks     string // the machines' folders; removed by Close
	memory    string // folder of the disks in memory; "" while there is none
	run       string // sockets, state and mounts; removed by Close
	lock      *os.File
	state     *stateFile
	network   *network // nil without a rate
	machines  []*Machine
	processes []*Process // in order of start
	delays    []*Delay
}

// runDir is short: the path of a socket has at most 107 bytes.
const runDir = "/run/ipcs-lab"

var validName = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

// ErrBusy is returned by Open while another process uses the lab of that name.
var ErrBusy = errors.New("in use")

// Open makes a lab, after clearing away what an earlier one of that name left.
func Open(ctx context.Context, opts Options) (*Lab, error) {
	if !validName.MatchString(opts.Name) {
		return nil, fmt.Errorf("lab name %q: want at most 8 letters and digits", opts.Name)
	}
	if os.Getuid() != 0 {
		return nil, errors.New("the lab makes network namespaces and mounts: run it as root")
	}
	if err := opts.resolve(); err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = func(string, ...any) {}
	}
	l := &Lab{
		opts:  opts,
		disks: filepath.Join(opts.Dir, "lab-"+opts.Name),
		run:   filepath.Join(runDir, opts.Name),
	}
	if err := l.acquire(); err != nil {
		return nil, err
	}
	if err := l.prepare(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// resolve makes paths absolute, and that of the disks the one that the kernel lists
// mounts by.
func (o *Options) resolve() error {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	for _, dir := range []*string{&o.Dir, &o.Tools, &o.Bin} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	var err error
	o.Dir, err = filepath.EvalSymlinks(o.Dir)
	return err
}

// acquire takes the lock of the lab's name.
func (l *Lab) acquire() error {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(l.run+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("lab %s: %w by another process (%s.lock)", l.opts.Name, ErrBusy, l.run)
	}
	l.lock = lock
	return nil
}

// prepare clears away an earlier run and makes folders and network.
func (l *Lab) prepare(ctx context.Context) error {
	state, err := openState(l.run + ".state")
	if err != nil {
		return err
	}
	l.state = state
	if err := l.clear(); err != nil {
		return fmt.Errorf("clear away an earlier run: %w", err)
	}
	for _, dir := range []string{l.run, l.disks} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := tools.Packages(ctx, tools.LabCommands()); err != nil {
		return err
	}
	if l.opts.Rate > 0 {
		if l.network, err = newNetwork(ctx, l); err != nil {
			return fmt.Errorf("make the network: %w", err)
		}
	}
	return nil
}

// MachineOptions say what a machine is like.
type MachineOptions struct {
	Rate int // what its link carries in each direction, in Mbit/s; 0: that of the lab
	// Memory puts its disk into memory, for a server whose disk shall not be what is measured.
	Memory bool
}

// Machine adds a machine to the lab.
func (l *Lab) Machine(ctx context.Context, name string) (*Machine, error) {
	return l.Add(ctx, name, MachineOptions{})
}

// Add adds a machine to the lab that differs from the others.
func (l *Lab) Add(ctx context.Context, name string, opts MachineOptions) (*Machine, error) {
	if l.network == nil && opts.Rate != 0 {
		return nil, fmt.Errorf("machine %s: a link of %d Mbit/s: %w", name, opts.Rate, errNoLink)
	}
	m := &Machine{
		lab: l, Name: name,
		dir: filepath.Join(l.disks, name),
		run: filepath.Join(l.run, name),
	}
	if opts.Memory {
		if err := l.mountMemory(); err != nil {
			return nil, fmt.Errorf("machine %s: %w", name, err)
		}
		m.dir = filepath.Join(l.memory, name)
	}
	for _, dir := range []string{m.dir, m.temp(), m.run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if l.network != nil {
		if err := l.network.attach(ctx, m, len(l.machines)+1, opts.Rate); err != nil {
			return nil, fmt.Errorf("machine %s: %w", name, err)
		}
	}
	l.machines = append(l.machines, m)
	return m, nil
}

// mountMemory mounts the tmpfs for the disks in memory, when the first is wanted. It is
// one for all, or each would have a limit and all together none. The limit leaves memory
// for programs: a disk that is full is an error that one of them reports, and no memory
// at all ends them. What is mounted below the lab's folders goes away with the lab.
func (l *Lab) mountMemory() error {
	if l.memory != "" {
		return nil
	}
	dir := filepath.Join(l.disks, ".memory")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("ipcs-lab", dir, "tmpfs", unix.MS_NODEV, "mode=0700,size=60%,nr_inodes=0"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	l.memory = dir
	return nil
}

// Close stops every process, unmounts and removes everything the lab made, and
// returns what was left in spite of that.
func (l *Lab) Close() error {
	var errs []error
	for _, d := range l.delays {
		errs = append(errs, d.Close())
	}
	for _, p := range slices.Backward(l.processes) {
		if p.running() {
			errs = append(errs, p.Stop())
		}
	}
	if l.state != nil {
		errs = append(errs, l.clear())
	}
	errs = append(errs, l.lock.Close())
	return errors.Join(errs...)
}
