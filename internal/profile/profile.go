// Package profile writes profiles of a run of a program into a folder, for go tool pprof:
// where processors spent their time (cpu.pprof), what was allocated (allocs.pprof), and
// where goroutines waited for each other and for locks (block.pprof, mutex.pprof).
//
// It sets what the Go runtime has one of for the whole process, so that one run is
// profiled at a time. Blocking is sampled only while it runs. There are no goroutines
// but the runtime's own.
package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

const (
	// blockRate is the time in which one wait is sampled, on average. Programs wait
	// often and shortly; to note each wait would cost more than it tells.
	blockRate = 10 * time.Microsecond
	// mutexFraction is how many contentions there are for one that is sampled.
	mutexFraction = 10
)

// Start begins profiles in the folder dir, which it makes if need be; with none it does
// nothing. The function that it returns ends them and writes the files. It must be called
// once.
func Start(dir string) (stop func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder for profiles: %w", err)
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, fmt.Errorf("write profiles: %w", err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(fmt.Errorf("profile the processors: %w", err), cpu.Close())
	}
	runtime.SetBlockProfileRate(int(blockRate))
	oldFraction := runtime.SetMutexProfileFraction(mutexFraction)
	return func() error {
		pprof.StopCPUProfile()
		runtime.SetBlockProfileRate(0)
		runtime.SetMutexProfileFraction(oldFraction)
		runtime.GC() // allocs is of the time of the last collection
		errs := []error{cpu.Close()}
		for _, name := range []string{"allocs", "block", "mutex"} {
			errs = append(errs, write(dir, name))
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("write profiles: %w", err)
		}
		return nil
	}, nil
}

// write writes one of the profiles that the runtime keeps.
func write(dir, name string) error {
	f, err := os.Create(filepath.Join(dir, name+".pprof"))
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
}
