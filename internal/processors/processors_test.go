package processors

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// TestBusy goes through looks that a computer of two processors might give.
func TestBusy(t *testing.T) {
	now := time.Now()
	var next usage
	var failed error
	m := &Meter{
		look:  func() (usage, error) { return next, failed },
		clock: func() time.Time { return now }, last: usage{at: now},
	}
	for _, step := range []struct {
		name               string
		after              time.Duration // since the look before
		all, programs, own float64       // since then
		fails, want        bool
	}{
		{name: "others use nearly all", after: time.Second, all: 2, programs: 1.9, want: true},
		{name: "asked again at once", after: 0, want: true},
		{name: "this program uses nearly all", after: time.Second, all: 2, programs: 1.9, own: 1.8},
		{name: "others use what this program leaves", after: time.Second, all: 2, programs: 2, own: 0.4, want: true},
		{name: "others use one of two", after: time.Second, all: 2, programs: 1},
		{name: "busy, but nobody asked for long", after: longest + time.Second, all: 8, programs: 8},
		{name: "busy since then", after: time.Second, all: 2, programs: 2, want: true},
		{name: "the kernel does not say", after: time.Second, fails: true},
		{name: "counters stand still", after: time.Second},
	} {
		failed = nil
		if step.fails {
			failed = errors.New("not here")
		}
		now = now.Add(step.after)
		next = usage{all: next.all + step.all, programs: next.programs + step.programs, own: next.own + step.own}
		if got := m.Busy(); got != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
	}
}

// TestThisComputer has programs use all processors, and finds them busy.
func TestThisComputer(t *testing.T) {
	m, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * runtime.NumCPU() {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpin$")
		c.Env = append(os.Environ(), "IPCS_TEST_SPIN=1")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	}
	tick := time.NewTicker(shortest)
	defer tick.Stop()
	for !m.Busy() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("not busy")
		}
	}
}

// TestSpin is the program that TestThisComputer runs.
func TestSpin(*testing.T) {
	for os.Getenv("IPCS_TEST_SPIN") != "" {
	}
}

// BenchmarkBusy is what asking takes.
func BenchmarkBusy(b *testing.B) {
	m, err := New()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m.Busy()
	}
}
