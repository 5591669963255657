//go:build linux

package metafs_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/erofs/erofstest"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/metafs"
	"github.com/hinshun/ipcs/internal/metafs/metafstest"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
)

func TestMain(m *testing.M) {
	hosttest.Main(m, map[string]func(string) error{metafstest.Program: metafstest.Serve})
}

// TestTrees finds that the kernel shows of an image what it shows of one that it mounts.
func TestTrees(t *testing.T) {
	client, _ := metafstest.Start(t)
	for name, tree := range erofstest.Trees() {
		t.Run(name, func(t *testing.T) {
			erofstest.Compare(t, mounted(t, client, tree), tree)
		})
	}
}

// mounted mounts an image of a tree until the test ends.
func mounted(t *testing.T, client *metafs.Client, tree erofs.Inodes) string {
	t.Helper()
	hosttest.Root(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := client.Mount(written(t, tree), dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	relaytest.NoPoll(t, dir)
	return dir
}

func written(t *testing.T, tree erofs.Inodes) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(erofs.Write(f, tree, erofs.Options{}), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// small is a tree with one empty file.
func small() erofs.Inodes {
	b := erofstest.NewBuilder()
	b.Add(0, "empty", erofstest.Reg(0))
	return b.Tree()
}

// TestServerOutlivesClients has a mount served when its daemon is gone, and also when the
// image's file is, and by the same server as the mounts of the daemon that follows. With
// the last mount and the last daemon the server ends.
func TestServerOutlivesClients(t *testing.T) {
	client, socket := metafstest.Start(t)
	tree := small()
	dirs := []string{t.TempDir(), t.TempDir()}
	path := written(t, tree)
	if err := errors.Join(client.Mount(path, dirs[0]), client.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	next, err := metafs.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Mount(written(t, tree), dirs[1]); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		relaytest.NoPoll(t, dir)
		erofstest.Compare(t, dir, tree)
		if b, err := os.ReadFile(filepath.Join(dir, "empty")); err != nil || len(b) > 0 {
			t.Errorf("read %q, %v", b, err)
		}
	}
	if err := errors.Join(unix.Unmount(dirs[0], 0), next.Close()); err != nil {
		t.Fatal(err)
	}
	erofstest.Compare(t, dirs[1], tree)
	if err := unix.Unmount(dirs[1], 0); err != nil {
		t.Fatal(err)
	}
	for { // the test hangs if the server does not end
		last, err := metafs.Dial(socket)
		if err != nil {
			break
		}
		if err := last.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left (%v)", err)
	}
}

// TestRefused hands over what cannot be served: nothing is mounted, and the server goes on.
func TestRefused(t *testing.T) {
	client, socket := metafstest.Start(t)
	for name, text := range map[string]string{"empty": "", "short": "short", "zeros": strings.Repeat("\x00", 1<<16)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := client.Mount(path, dir); err == nil || !strings.Contains(err.Error(), erofs.ErrFormat.Error()) {
			t.Errorf("%s: error is %v", name, err)
		}
		if err := os.Remove(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, packet := range []string{"nonsense", "mount"} {
		sock, err := net.Dial("unixpacket", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sock.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
		var b [100]byte
		for err == nil { // the greeting, and then the end
			var n int
			if n, err = sock.Read(b[:]); n == 0 {
				break
			}
		}
		sock.Close()
	}
	tree := small()
	erofstest.Compare(t, mounted(t, client, tree), tree)
}
