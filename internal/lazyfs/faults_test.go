package lazyfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

func TestMain(m *testing.M) {
	hosttest.Main(m, map[string]func(string) error{"read": readOnce})
}

// readOnce reads with one system call, as a program that knows no EINTR of files does.
func readOnce(path string) error {
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if n, err := syscall.Read(fd, b); n != 1 || err != nil || b[0] != 'x' {
		return fmt.Errorf("read %d bytes %q: %w", n, b, err)
	}
	return nil
}

var errPeers = errors.New("asked peers A and B")

// lost stands for a node whose peers are gone.
func lost(ctx context.Context, _ cid.Cid) error {
	<-ctx.Done()
	return errPeers
}

func TestTimeoutThenSuccess(t *testing.T) {
	fx := mount(t, t.TempDir(), 300*time.Millisecond)
	for _, size := range []int{5000, 20 * ipfs.LeafSize} {
		data := objectstest.Random(int64(size), size)
		f, path := fx.add(t, data)
		file, err := os.Open(path) // stays open, as in a container
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		fx.source.SetHook(lost)
		buf := make([]byte, 100)
		if _, err := file.ReadAt(buf, 0); !errors.Is(err, syscall.EIO) {
			t.Fatalf("read without peers: %v", err)
		}
		for _, want := range []string{errPeers.Error(), f.Cid.String(), "/path/of/"} {
			if !strings.Contains(fx.log.String(), want) {
				t.Errorf("the log does not name %q", want)
			}
		}
		fx.source.SetHook(nil)
		if _, err := file.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, data[:100]) {
			t.Fatalf("read with peers back: %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
}

// TestFailureIsNotRepeated: the kernel asks again for each page of a read-ahead that
// failed, and the reader must not wait for each.
func TestFailureIsNotRepeated(t *testing.T) {
	fx := mount(t, t.TempDir(), 1500*time.Millisecond)
	f, path := fx.add(t, objectstest.Random(1, 200_000))
	fx.source.SetHook(lost)
	if _, err := os.ReadFile(path); !errors.Is(err, syscall.EIO) {
		t.Fatalf("read without peers: %v", err)
	}
	if n := fx.source.Asked(f.Cid); n != 1 {
		t.Errorf("asked %d times for one read", n)
	}
}

func TestFullDisk(t *testing.T) {
	dir := hosttest.Disk(t, "12m")
	fx := mount(t, filepath.Join(dir, "store"), time.Minute)
	data := objectstest.Random(1, 3*ipfs.LeafSize)
	_, path := fx.add(t, data)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 20<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if _, err := os.ReadFile(path); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("read on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes with space again, %v", len(got), err)
	}
}

// TestSignals: a signal that kills nobody does not end a read, one that kills does.
// The first request fails, since the kernel forwards signals only for the second: the one
// that is not a read-ahead.
func TestSignals(t *testing.T) {
	for sig, reader := range map[syscall.Signal]func(path string) *exec.Cmd{
		syscall.SIGURG:  func(path string) *exec.Cmd { return hosttest.Program("read", path) }, // Go ignores it
		syscall.SIGTERM: func(path string) *exec.Cmd { return exec.Command("cat", path) },
		syscall.SIGKILL: func(path string) *exec.Cmd { return hosttest.Program("read", path) },
	} {
		t.Run(sig.String(), func(t *testing.T) {
			fx := mount(t, t.TempDir(), time.Minute)
			f, path := fx.add(t, []byte("x"+sig.String()))
			asked, release := make(chan struct{}), make(chan struct{})
			var asks atomic.Int32
			fx.source.SetHook(func(context.Context, cid.Cid) error {
				if asks.Add(1) == 1 {
					return errPeers
				}
				close(asked)
				<-release
				return nil
			})
			cmd := reader(path)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-asked
			signalThreads(t, cmd.Process.Pid, sig)
			ended := make(chan error)
			go func() { ended <- cmd.Wait() }()
			if sig == syscall.SIGURG {
				select { // a reader that was let go would be gone by then
				case err := <-ended:
					close(release)
					t.Fatalf("child ended at a signal: %v", err)
				case <-time.After(500 * time.Millisecond):
				}
				close(release)
				if err := <-ended; err != nil {
					t.Errorf("child: %v", err)
				}
			} else { // it must end though the block does not come
				if err := <-ended; err == nil || !strings.Contains(err.Error(), "signal") {
					t.Errorf("child: %v", err)
				}
				close(release)
			}
			if err := fx.fetcher.Ensure(t.Context(), f); err != nil || fx.source.Asked(f.Cid) != 2 {
				t.Errorf("the fetch did not go on: %v, asked %d times", err, fx.source.Asked(f.Cid))
			}
		})
	}
}

// signalThreads signals each thread, of which one is waiting for us.
func signalThreads(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Tgkill(pid, tid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
}

func TestUnmountEndsReads(t *testing.T) {
	fx := mount(t, t.TempDir(), time.Hour)
	_, path := fx.add(t, []byte("data"))
	asked := make(chan struct{})
	fx.source.SetHook(func(ctx context.Context, c cid.Cid) error {
		close(asked)
		return lost(ctx, c)
	})
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // in use: a plain unmount would be refused
	failed := make(chan error)
	go func() {
		_, err := file.ReadAt(make([]byte, 4), 0)
		failed <- err
	}()
	<-asked
	if err := fx.server.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("the read succeeded")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still mounted: %v", err)
	}
}
