package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/metafs"
)

// TestImageServer mounts images through the process that serves them: one for both, another
// when it was killed, and none when nothing is mounted and the daemon has gone.
func TestImageServer(t *testing.T) {
	hosttest.Root(t)
	dir, err := os.MkdirTemp("", "images") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(erofs.Write(f, erofs.Inodes{{Mode: unix.S_IFDIR | 0o751}}, erofs.Options{}), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &imageServer{state: dir, listen: listenPackets(t.Context())}
	mount := func(name string) string {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := s.mount(image, at); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil || st.Mode != unix.S_IFDIR|0o751 {
			t.Errorf("%s has mode %o, %v", name, st.Mode, err)
		}
		return at
	}
	first, second := mount("first"), mount("second")
	pids := servers(t, dir)
	if len(pids) != 1 {
		t.Fatalf("%d processes serve images", len(pids))
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{first, second} {
		for unix.Statfs(at, &unix.Statfs_t{}) == nil { // until it is dead
		}
	}
	again := mount("first") // where the dead one is
	for _, at := range []string{again, second} {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	for len(servers(t, dir)) > 0 { // the test hangs if it does not end
	}
}

// TestImagesDie starts a server of images that ends before it greets: whoever waits for it must
// learn that.
func TestImagesDie(t *testing.T) {
	t.Setenv(asDying, "1")
	dir, err := os.MkdirTemp("", "images") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	client, err := connectImages(dir, listenPackets(t.Context()))
	if err == nil {
		t.Fatalf("connected to a server that is dead: %v", client.Close())
	}
	if !errors.Is(err, metafs.ErrGone) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

// servers returns the processes that serve images and hold an open file of a folder's socket.
func servers(t *testing.T, dir string) (pids []int) {
	t.Helper()
	listening, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	var inode string
	for line := range strings.Lines(string(listening)) {
		fields := strings.Fields(line)
		if len(fields) == 8 && strings.HasPrefix(fields[7], filepath.Join(dir, "images-")) && fields[5] == "01" {
			inode = fields[6]
		}
	}
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && inode != "" && to == "socket:["+inode+"]" {
			if pid, err := strconv.Atoi(strings.Split(fd, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
