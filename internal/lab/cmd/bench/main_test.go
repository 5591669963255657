package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const stdout = 1

// Each of these ends a run, which then clears away what it made.
func TestEnding(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if s == syscall.SIGHUP && signal.Ignored(s) {
			t.Log("SIGHUP is ignored here, as under nohup: it ends nothing")
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			ctx, stop := ending()
			defer stop()
			if err := syscall.Kill(os.Getpid(), s); err != nil {
				t.Fatal(err)
			}
			<-ctx.Done()
		})
	}
}

// What is said to a pipe that nobody reads is an error and not the end, also on standard
// output, where the runtime ends programs that do not ask for it.
func TestBrokenPipe(t *testing.T) {
	ctx, stop := ending()
	defer stop()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	kept, err := unix.Dup(stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	if err := errors.Join(r.Close(), unix.Dup3(int(w.Fd()), stdout, 0)); err != nil {
		t.Fatal(err)
	}
	_, said := os.Stdout.WriteString("x")
	if err := unix.Dup3(kept, stdout, 0); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(said, syscall.EPIPE) || ctx.Err() != nil {
		t.Errorf("said with %v, want EPIPE; the run: %v", said, ctx.Err())
	}
}
