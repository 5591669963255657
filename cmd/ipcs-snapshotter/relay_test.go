package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hinshun/ipcs/internal/relay"
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
