package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/profile/profiletest"
)

// mountInside mounts something on the machine's disk, which is to be unmounted first.
func mountInside(t *testing.T, m *lab.Machine) {
	t.Helper()
	dir := filepath.Join(m.Dir(), "inside")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("lab-test", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

// TestMemory runs a daemon on a disk in memory, asks what it takes, and ends as an
// interrupted program does: the context is over when Close is called.
func TestMemory(t *testing.T) {
	labtest.Build(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := lab.Open(ctx, labtest.Options(t, "memory", 100))
	if err != nil {
		t.Fatal(err)
	}
	m := add(t, l, "node", lab.MachineOptions{Memory: true})
	var fs unix.Statfs_t
	if err := unix.Statfs(m.Dir(), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Errorf("%s has type %x, %v", m.Dir(), fs.Type, err)
	}
	var same unix.Statfs_t
	if err := unix.Statfs(add(t, l, "second", lab.MachineOptions{Memory: true}).Dir(), &same); err != nil || same.Fsid != fs.Fsid {
		t.Errorf("the second disk in memory has a limit of its own (%v)", err)
	}
	if info, err := os.Stat(m.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", m.Dir(), info, err)
	}
	mountInside(t, m)
	profiles := t.TempDir()
	daemon, err := m.StartDaemon(ctx, lab.DaemonOptions{Pprof: profiles})
	if err != nil {
		t.Fatal(err)
	}
	checkUsage(t, daemon.Process)
	if _, err := m.StartDelay(ctx, m.Addr()+":4100", rtt); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Leftovers(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.Dir()); err == nil {
		t.Errorf("%s is still there", m.Dir())
	}
	if _, err := daemon.CPU(); err == nil {
		t.Error("the processor time of a process that has ended")
	}
	profiletest.Check(t, profiles)
}

// checkUsage asks for what a process takes.
func checkUsage(t *testing.T, p *lab.Process) {
	t.Helper()
	resident, err := p.Resident()
	if err != nil || resident < 1<<20 {
		t.Errorf("%d bytes resident, %v", resident, err)
	}
	if peak, err := p.Peak(); err != nil || peak < resident/2 { // the kernel counts both roughly
		t.Errorf("%d bytes at most, %v; %d now", peak, err, resident)
	}
	if took, err := p.CPU(); err != nil || took <= 0 {
		t.Errorf("took %s of processors, %v; it started and answered", took, err)
	}
}

// TestBusy keeps a core busy until the kernel has counted it.
func TestBusy(t *testing.T) {
	before, err := lab.ReadCPU()
	if err != nil {
		t.Fatal(err)
	}
	if busy := before.Busy(before); busy != 0 {
		t.Errorf("busy in no time: %v", busy)
	}
	for {
		now, err := lab.ReadCPU()
		if err != nil {
			t.Fatal(err)
		}
		if busy := before.Busy(now); busy > 0 && busy <= 1 {
			return
		} else if busy != 0 {
			t.Fatalf("busy: %v", busy)
		}
	}
}
