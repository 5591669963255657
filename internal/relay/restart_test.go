//go:build linux

package relay_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
)

// runRelay is a relay in a process of its own. The state is its standard input.
func runRelay(dir string) error {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	state, err := relay.ReadState(os.Stdin)
	if err != nil {
		return err
	}
	return relay.New(dir, os.NewFile(4, "/dev/fuse"), ln.(*net.UnixListener), relay.Options{State: state}).Serve(context.Background())
}

// startRelay starts a relay that the test can kill.
func startRelay(t *testing.T, dir, socket string, dev *os.File, state relay.State) *exec.Cmd {
	t.Helper()
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	var known bytes.Buffer
	if _, err := state.WriteTo(&known); err != nil {
		t.Fatal(err)
	}
	cmd := hosttest.Program("relay", dir)
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = &known, os.Stderr, []*os.File{f, dev}
	if err := errors.Join(cmd.Start(), f.Close(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead, or end as it should
		_ = cmd.Wait()
	})
	return cmd
}

// serveWith serves files until the relay is gone, or the test ends.
func serveWith(t *testing.T, client *relay.Client, f *files) (gone chan error) {
	gone = make(chan error, 1)
	protocol := fuse.NewProtocolServer(f, &fuse.MountOptions{})
	var serving sync.WaitGroup
	serving.Go(func() {
		gone <- client.Serve(func(request, reply []byte) int {
			n, _ := protocol.HandleRequest([][]byte{request}, [][]byte{reply})
			return n
		})
	})
	t.Cleanup(func() {
		_ = client.Close() // it may be closed
		serving.Wait()
		client.Wait()
	})
	return gone
}

// spared returns the device as a Spare gives it away.
func spared(t *testing.T, dev *os.File, state relay.State) *os.File {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(dev.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	kept := make(chan error)
	go func() { kept <- relay.NewSpare(os.NewFile(uintptr(fd), "kept"), ln).Keep(t.Context(), nil) }()
	// Who only looks for it leaves the device there.
	for range 2 {
		if err := relay.FindSpare(socket); err != nil {
			t.Error(err)
		}
	}
	got, err := relay.AskSpare(socket, state)
	if err := errors.Join(err, <-kept); err != nil {
		t.Fatal(err)
	}
	if err := relay.FindSpare(socket); err == nil {
		t.Error("found a Spare that has given all that it had")
	}
	return got
}

// TestSpare asks for what cannot go on.
func TestSpare(t *testing.T) {
	hosttest.Root(t)
	dir := t.TempDir()
	if _, err := relay.AskSpare(filepath.Join(dir, "s"), relay.State{}); !errors.Is(err, relay.ErrLost) {
		t.Errorf("where nobody listens: %v", err)
	}
	if err := relay.FindSpare(filepath.Join(dir, "s")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("where nobody listens there is: %v", err)
	}
	old := make([]byte, 104) // INIT without flags
	for what, init := range map[string][]byte{"no INIT": nil, "an old kernel": old} {
		dev, err := relay.Mount(dir)
		if err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(t.TempDir(), "s")
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
		if err != nil {
			t.Fatal(err)
		}
		kept := make(chan error)
		go func() { kept <- relay.NewSpare(dev, ln).Keep(t.Context(), nil) }()
		if _, err := relay.AskSpare(socket, relay.State{Init: init}); !errors.Is(err, relay.ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
		if err := <-kept; err != nil {
			t.Error(err)
		}
		// Nobody has the device any more.
		if err := unix.Statfs(dir, &unix.Statfs_t{}); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("%s: the file system is there: %v", what, err)
		}
		if err := errors.Join(relay.Abandon(dir), relay.Abandon(dir)); err != nil {
			t.Error(err)
		}
	}
}

// TestRelayKilled kills relays while readers wait for answers: each time another relay takes
// its place, and nobody notices.
func TestRelayKilled(t *testing.T) {
	hosttest.Root(t)
	const kills, readers = 5, 4
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "s")
	dev, err := relay.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	defer dev.Close()
	cmd := startRelay(t, dir, socket, dev, relay.State{})
	client, err := relay.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	f := newFiles("it")
	gone := serveWith(t, client, f)
	got := make(chan string, readers)
	for i := range readers {
		go func() {
			text, err := read(dir, string(rune('a'+i)))
			got <- fmt.Sprint(text, err)
		}()
	}
	for range readers {
		<-f.asked
	}
	for range kills {
		if pid, m, err := client.Memory(); err != nil || pid != cmd.Process.Pid || m.Own == 0 {
			t.Errorf("the relay has process %d and memory %+v, %v; want process %d", pid, m, err, cmd.Process.Pid)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-gone; err != nil {
			t.Fatal(err)
		}
		dev := spared(t, dev, relay.State{Init: client.Init()})
		cmd = startRelay(t, dir, socket, dev, relay.State{Init: client.Init(), Nodes: []relay.Node{{ID: 100 + 'a', Name: "a", Lookups: 1}}})
		if client, err = relay.Dial(socket); err != nil {
			t.Fatal(err)
		}
		if known := client.Known(); len(known) != 1 || known[0].Name != "a" {
			t.Errorf("the relay knows %v", known)
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		gone = serveWith(t, client, f)
		for range readers { // the kernel asks again
			<-f.asked
		}
	}
	close(f.answer)
	for range readers {
		if text := <-got; text != "it<nil>" {
			t.Errorf("read %q", text)
		}
	}
}

// TestNobodyIsLeft kills relay and daemon: readers fail, and the place can be mounted on again.
func TestNobodyIsLeft(t *testing.T) {
	hosttest.Root(t)
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "s")
	dev, err := relay.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := startRelay(t, dir, socket, dev, relay.State{})
	client, err := relay.Dial(socket)
	if err := errors.Join(err, dev.Close()); err != nil {
		t.Fatal(err)
	}
	f := newFiles("it")
	gone := serveWith(t, client, f)
	failed := make(chan error)
	go func() {
		_, err := read(dir, "a")
		failed <- err
	}()
	<-f.asked
	if err := errors.Join(cmd.Process.Kill(), <-gone, client.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("a read has succeeded that nobody answered")
	}
	close(f.answer)
	if dev, err = relay.Mount(dir); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dev.Close(), unix.Unmount(dir, 0)); err != nil {
		t.Fatal(err)
	}
}

// readsItself is a daemon that reads from the file system that it serves, and answers nobody.
func readsItself(place string) error {
	dir, socket, _ := strings.Cut(place, "\n")
	client, err := relay.Dial(socket)
	if err != nil {
		return err
	}
	f := newFiles("it")
	protocol := fuse.NewProtocolServer(f, &fuse.MountOptions{})
	go func() {
		_, err := os.ReadFile(filepath.Join(dir, "a"))
		fmt.Println("read", err)
	}()
	go func() {
		<-f.asked
		fmt.Println("asked")
	}()
	return client.Serve(func(request, reply []byte) int {
		n, _ := protocol.HandleRequest([][]byte{request}, [][]byte{reply})
		return n
	})
}

// TestDaemonReadsItself kills a daemon that waits for itself. The kernel lets it end only when it
// has got an answer, and until then its connection is there.
func TestDaemonReadsItself(t *testing.T) {
	hosttest.Root(t)
	dir := t.TempDir()
	socket := relaytest.Start(t, dir, relaytest.Options{})
	cmd := hosttest.Program("reads itself", dir+"\n"+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "asked\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the daemon ended with %v", err)
	}
	daemon(t, socket, answered("next"))
	if text, err := read(dir, "b"); text != "next" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
}
