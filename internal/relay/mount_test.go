//go:build linux

package relay_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/relay"
)

func TestMain(m *testing.M) {
	hosttest.Main(m, map[string]func(string) error{
		"read": func(path string) error {
			b, err := os.ReadFile(path)
			os.Stdout.Write(b)
			return err
		},
		"relay":                runRelay,
		"reads itself":         readsItself,
		"mount":                func(dir string) error { return tryMount(dir, "") },
		"mount without device": func(dir string) error { return tryMount(dir, "/dev/fuse") },
		"mount and die": func(dir string) error {
			dev, err := relay.Mount(dir)
			if err == nil {
				err = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return errors.Join(err, dev.Close())
		},
	})
}

// tryMount mounts, in a namespace of its own and with a device hidden, and says what went
// wrong.
func tryMount(dir, hidden string) error {
	if hidden != "" {
		if err := os.Remove(hidden); err != nil {
			return err
		}
	}
	dev, err := relay.Mount(dir)
	if errors.Is(err, relay.ErrNoFuse) {
		return errors.New("ErrNoFuse: " + err.Error())
	}
	if err != nil {
		return err
	}
	return errors.Join(dev.Close(), unix.Unmount(dir, unix.MNT_DETACH))
}

func TestMountOverDeadMount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lazy", "files")
	for range 2 {
		if out, err := hosttest.Program("mount and die", dir).CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("child: %v, %s", err, out)
		}
		if err := syscall.Statfs(dir, &syscall.Statfs_t{}); !errors.Is(err, syscall.ENOTCONN) {
			t.Fatalf("the dead child left no mount: %v", err)
		}
	}
	dev, err := relay.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dev.Close(), unix.Unmount(dir, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Errorf("a mount is left: %v", err)
	}
}

func TestNoFuse(t *testing.T) {
	t.Run("no device", func(t *testing.T) {
		// A /dev of its own in a mount namespace of its own.
		shell := hosttest.As("mount without device", exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
			`mount -t tmpfs dev /dev && touch /dev/fuse && exec "$0" "$1"`, os.Args[0], t.TempDir()))
		out, err := shell.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ErrNoFuse") || !strings.Contains(string(out), "modprobe fuse") {
			t.Errorf("%v, %s", err, out)
		}
	})
	t.Run("no rights", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		bin := filepath.Join(dir, "test")
		b, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(bin, b, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := hosttest.As("mount", exec.Command("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", bin, filepath.Join(dir, "mnt")))
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ErrNoFuse") || !strings.Contains(string(out), "run as root") {
			t.Errorf("%v, %s", err, out)
		}
	})
}
