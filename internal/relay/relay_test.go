//go:build linux

package relay_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
)

// files is a file system of one directory, in which every name of a letter is a file that
// says who serves it.
type files struct {
	fuse.RawFileSystem
	who    string
	asked  chan struct{} // gets one for each read, before it is answered
	answer chan struct{} // closed when reads are answered
}

func newFiles(who string) *files {
	f := &files{fuse.NewDefaultRawFileSystem(), who, make(chan struct{}, 100), make(chan struct{})}
	return f
}

func (f *files) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) != 1 {
		return fuse.ENOENT
	}
	out.NodeId = 100 + uint64(name[0])
	out.SetEntryTimeout(time.Hour)
	out.SetAttrTimeout(time.Hour)
	out.Attr = fuse.Attr{Ino: out.NodeId, Mode: syscall.S_IFREG | 0o444, Nlink: 1, Size: uint64(len(f.who))}
	return fuse.OK
}

func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr = fuse.Attr{Ino: in.NodeId, Mode: syscall.S_IFDIR | 0o555, Nlink: 2}
	return fuse.OK
}

func (f *files) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f.asked <- struct{}{}
	<-f.answer
	return fuse.ReadResultData([]byte(f.who)), fuse.OK
}

// daemon serves files, and is gone when the test ends.
func daemon(t *testing.T, socket string, f *files) *relay.Client {
	t.Helper()
	client, err := relay.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	protocol := fuse.NewProtocolServer(f, &fuse.MountOptions{})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := client.Serve(func(request, reply []byte) int {
			n, _ := protocol.HandleRequest([][]byte{request}, [][]byte{reply})
			return n
		}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		client.Close() // it may be closed
		select {
		case <-f.answer:
		default:
			close(f.answer)
		}
		serving.Wait()
	})
	return client
}

// read reads a file as another process, since what waits in this one may keep its own
// server from running.
func read(dir, name string) (string, error) {
	out, err := hosttest.Program("read", filepath.Join(dir, name)).Output()
	if err != nil && strings.Contains(string(out), "input/output error") {
		return "", syscall.EIO
	}
	return string(out), err
}

func answered(who string) *files {
	f := newFiles(who)
	close(f.answer)
	return f
}

func TestSecondDaemonAnswers(t *testing.T) {
	dir := t.TempDir()
	socket := relaytest.Start(t, dir, relaytest.Options{})
	first := newFiles("first")
	daemon(t, socket, first)
	got := make(chan string)
	go func() {
		text, err := read(dir, "a")
		got <- fmt.Sprint(text, err)
	}()
	<-first.asked
	second := daemon(t, socket, answered("again"))
	if text := <-got; text != "again<nil>" {
		t.Errorf("read %q", text)
	}
	close(first.answer) // too late
	if text, err := read(dir, "b"); text != "again" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	known := second.Known()
	if len(known) != 1 || known[0].Name != "a" || known[0].ID != 100+'a' || known[0].Size != 5 || known[0].Lookups != 1 {
		t.Errorf("the second daemon was told %+v", known)
	}
}

func TestPatience(t *testing.T) {
	dir := t.TempDir()
	socket := relaytest.Start(t, dir, relaytest.Options{Patience: 200 * time.Millisecond})
	first := newFiles("first")
	client := daemon(t, socket, first)
	failed := make(chan error)
	go func() {
		_, err := read(dir, "a")
		failed <- err
	}()
	<-first.asked
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, syscall.EIO) {
		t.Errorf("read without a daemon: %v", err)
	}
	if _, err := read(dir, "b"); !errors.Is(err, syscall.EIO) {
		t.Errorf("lookup without a daemon: %v", err)
	}
	daemon(t, socket, answered("later"))
	for _, name := range []string{"a", "b"} {
		if text, err := read(dir, name); text != "later" || err != nil {
			t.Errorf("read %q, %v", text, err)
		}
	}
}

func TestForgotten(t *testing.T) {
	dir := t.TempDir()
	socket := relaytest.Start(t, dir, relaytest.Options{})
	first := daemon(t, socket, answered("first"))
	for _, name := range []string{"a", "b"} {
		if _, err := read(dir, name); err != nil {
			t.Fatal(err)
		}
	}
	// FUSE_NOTIFY_INVAL_ENTRY of "a" in the root: the kernel looks it up no more, and forgets.
	m := []byte{16 + 16 + 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'a', 0}
	if err := first.Notify(m); err != nil {
		t.Fatal(err)
	}
	var known []relay.Node
	for range 100 { // the kernel forgets when it has time
		known = daemon(t, socket, answered("again")).Known()
		if len(known) == 1 {
			break
		}
	}
	if len(known) != 1 || known[0].Name != "b" {
		t.Errorf("remembered is %+v", known)
	}
}

func TestGarbage(t *testing.T) {
	dir := t.TempDir()
	log := &strings.Builder{}
	socket := relaytest.Start(t, dir, relaytest.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	daemon(t, socket, answered("first"))
	for _, garbage := range []string{"\xff\xff\xff\xff0123456789ab", "\x01\x00\x00\x000123456789ab", strings.Repeat("\x00", 64)} {
		sock, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sock.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		var end [1 << 16]byte
		for err == nil { // the relay ends it
			_, err = sock.Read(end[:])
		}
		sock.Close()
	}
	daemon(t, socket, answered("after"))
	if text, err := read(dir, "a"); text != "after" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
}

func TestEnd(t *testing.T) {
	dir := t.TempDir()
	socket := relaytest.Start(t, dir, relaytest.Options{})
	client := daemon(t, socket, answered("first"))
	if text, err := read(dir, "a"); text != "first" || err != nil {
		t.Fatalf("read %q, %v", text, err)
	}
	if err := client.End(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := net.Dial("unix", socket); err != nil {
			break
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v: it is still mounted", entries, err)
	}
	for range 3 { // the first may still find room for what nobody reads
		if err := client.End(); err != nil {
			t.Errorf("end what is gone: %v", err)
		}
	}
}
