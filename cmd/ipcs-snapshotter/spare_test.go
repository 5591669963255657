package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/relay"
)

// spares returns the processes that keep the device for a socket.
func spares(t *testing.T, socket string) (pids []int) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		text, err := os.ReadFile(c) // it may have ended
		if err != nil || !bytes.Contains(text, []byte("\x00--spare\x00"+spareSocket(socket)+"\x00")) || bytes.Contains(text, []byte("--detach")) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(c, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestSpareStays asks the spare to end, as one does who ends all processes of a service. It has
// the device for as long as the relay lives, and ends with it.
func TestSpareStays(t *testing.T) {
	hosttest.Root(t)
	run, err := os.MkdirTemp("", "spare") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	dir, socket := t.TempDir(), filepath.Join(run, "s")
	client, err := connectRelay(t.Context(), socket, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ended := func() bool { return len(spares(t, socket)) == 0 }
	pids := spares(t, socket)
	if len(pids) != 1 {
		t.Fatalf("%d processes keep the device", len(pids))
	}
	for range 20 { // so that it would be seen
		if err := syscall.Kill(pids[0], syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := relay.FindSpare(spareSocket(socket)); err != nil {
		t.Errorf("a spare that was asked to end has left its relay: %v", err)
	}
	if err := client.End(); err != nil {
		t.Fatal(err)
	}
	for !ended() { // the test hangs if it does not end
	}
	if err := unix.Unmount(dir, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("it was left mounted: %v", err)
	}
}

// TestWatchSpare reads in the log that there is no spare, and that there is one again.
func TestWatchSpare(t *testing.T) {
	dir, err := os.MkdirTemp("", "spare") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	read, write := io.Pipe()
	go func() {
		defer close(done)
		watchSpare(ctx, socket, time.Millisecond, slog.New(slog.NewTextHandler(write, nil)))
	}()
	line := func() string {
		b := make([]byte, 4096)
		n, err := read.Read(b) // a line is written at once
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := line(); !strings.Contains(got, noSpare) {
		t.Errorf("there is none, and the log says %q", got)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if got := line(); !strings.Contains(got, "again") {
		t.Errorf("there is one, and the log says %q", got)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if got := line(); !strings.Contains(got, noSpare) {
		t.Errorf("it has ended, and the log says %q", got)
	}
	stop()
	<-done
}
