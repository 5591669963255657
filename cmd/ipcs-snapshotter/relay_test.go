package main

import (
	"errors"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/ipfs"
)

// asDying in the environment makes a server of images end at once.
const asDying = "IPCS_TEST_DYING"

// TestMain is a helper when a daemon of these tests starts one: that runs its own program,
// which is this test. It is all of the program where a test wants that.
func TestMain(m *testing.M) {
	if os.Getenv(asDying) != "" && len(os.Args) == 2 && os.Args[1] == imagesCommand().Name() {
		os.Exit(1)
	}
	if os.Getenv(asDaemon) != "" || len(os.Args) > 1 && (os.Args[1] == relayCommand().Name() || os.Args[1] == imagesCommand().Name()) {
		main()
		return
	}
	if os.Getenv(asReader) != "" {
		os.Exit(exitCode(readAll(os.Args[1])))
	}
	os.Exit(m.Run())
}

// TestRelayDies starts a relay that ends before it greets, for want of a state that can be read.
// Whoever waits for it must learn that, and its spare must have the device by then.
func TestRelayDies(t *testing.T) {
	dir, err := os.MkdirTemp("", "relay") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dev, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	socket := filepath.Join(dir, "s")
	client, err := newRelay(t.Context(), socket, dir, dev, relay.State{Init: []byte("torn")})
	if err == nil {
		t.Fatalf("connected to a relay that is dead: %v", client.Close())
	}
	if errors.Is(err, syscall.ENOENT) {
		t.Errorf("there was no relay: %v", err)
	}
	spare, err := net.Dial("unix", spareSocket(socket))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := spare.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("the spare gives %d bytes, %v", n, err)
	}
	if err := spare.Close(); err != nil {
		t.Error(err)
	}
}

// nothing is a file system without files of images.
type nothing struct{}

func (nothing) Claims(cid.Cid) iter.Seq2[ipfs.File, string] {
	return func(func(ipfs.File, string) bool) {}
}
func (nothing) Observe(ipfs.File, int64, int64)          {}
func (nothing) Neighbours(ipfs.File) iter.Seq[ipfs.File] { return func(func(ipfs.File) bool) {} }

// TestRelayRestarts kills the relay of a daemon that has a file of its own file system open, before it
// has closed any: the process that becomes the next relay closes its copy of that file first,
// which must not wait for a relay.
func TestRelayRestarts(t *testing.T) {
	hosttest.Root(t)
	state, err := os.MkdirTemp("", "relay") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	store, err := objects.Open(t.TempDir(), objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := parts{store: store, fetcher: fetch.New(store, nil, fetch.Options{})}
	defer p.fetcher.Close()
	dir := filepath.Join(state, "lazy")
	lazy, err := p.serveLazy(t.Context(), config{State: state}, dir, nothing{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lazy.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	pid, _, err := lazy.Relay()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); lazy.Stats().Restarts == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no relay has taken the place of the one that was killed")
		}
	}
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
}
