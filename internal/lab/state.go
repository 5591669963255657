package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// stateFile lists the processes of a lab, one "PID START" a line. START is the time
// of the start as the kernel counts it: a number that was given to another process
// since is told from ours by it.
type stateFile struct{ path string }

func openState(path string) (*stateFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &stateFile{path}, f.Close()
}

func (s *stateFile) add(pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return nil // it is gone already
	}
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %s\n", pid, start)
	return errors.Join(err, f.Close())
}

// alive returns the processes that still run.
func (s *stateFile) alive() ([]int, error) {
	text, err := os.ReadFile(s.path)
	if err != nil {
		return nil, err
	}
	var pids []int
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		number, start, _ := strings.Cut(lines.Text(), " ")
		pid, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.path, err)
		}
		if now, err := startTime(pid); err == nil && now == start {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// startTime returns field 22 of /proc/PID/stat. Zombies count as gone.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

// clear ends what runs for this lab, unmounts what is mounted below its folders and
// removes those. It does not look at what this process knows: it works the same for
// an earlier process's lab.
func (l *Lab) clear() error {
	errs := []error{l.clearContainers(), l.clearProcesses(), l.unmount()}
	if err := errors.Join(errs...); err != nil {
		return err // what is still mounted must not be removed
	}
	if err := errors.Join(os.RemoveAll(l.run), os.RemoveAll(l.disks)); err != nil {
		return err
	}
	return os.Truncate(l.state.path, 0)
}

// clearContainers ends containers and their shims, which outlive containerd, and the relays
// of daemons, which outlive those.
func (l *Lab) clearContainers() error {
	bundles, err := filepath.Glob(filepath.Join(l.run, "*", "*", "io.containerd.runtime.v2.task", "*", "*"))
	if err != nil {
		return err
	}
	for _, b := range bundles {
		root := filepath.Join("/run/containerd/runc", filepath.Base(filepath.Dir(b)))
		cmd := exec.Command(filepath.Join(l.opts.Tools, "runc"), "--root", root, "delete", "--force", filepath.Base(b))
		if out, err := cmd.CombinedOutput(); err != nil {
			l.opts.Log("remove container %s: %v: %s", filepath.Base(b), err, out)
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, c := range commands {
		text, err := os.ReadFile(c)
		if err != nil || !outlives(text, l.run) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(c)))
		if err != nil {
			return err
		}
		if err := l.state.add(pid); err != nil {
			return err
		}
	}
	return nil
}

// outlives says whether a command line is that of a shim or a relay of a lab.
func outlives(cmdline []byte, run string) bool {
	return bytes.Contains(cmdline, []byte("\x00-address\x00"+run+"/")) || bytes.Contains(cmdline, []byte("\x00relay\x00--dir\x00"+run+"/"))
}

// clearProcesses kills what the state file lists, the last first, and waits for it to
// be gone.
func (l *Lab) clearProcesses() error {
	deadline := time.Now().Add(stopTime)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := l.state.alive()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for i := len(pids) - 1; i >= 0; i-- {
			if err := syscall.Kill(pids[i], syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d: %w", pids[i], err)
			}
		}
		<-tick.C
	}
}

// Mounts returns the mount points below the lab's folders, the last mounted first.
func (l *Lab) Mounts() ([]string, error) {
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !below(i.Mountpoint, l.run) && !below(i.Mountpoint, l.disks), false
	})
	if err != nil {
		return nil, err
	}
	var points []string
	for i := len(infos) - 1; i >= 0; i-- {
		points = append(points, infos[i].Mountpoint)
	}
	return points, nil
}

func below(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

func (l *Lab) unmount() error {
	points, err := l.Mounts()
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// Leftovers says what of a lab still runs or is mounted, and is nil after a Close that
// did its work.
func (l *Lab) Leftovers() error {
	pids, err := l.state.alive()
	if err != nil {
		return err
	}
	points, err := l.Mounts()
	if err != nil {
		return err
	}
	if len(pids) > 0 || len(points) > 0 {
		return fmt.Errorf("lab %s: left running: %v, left mounted: %v", l.opts.Name, pids, points)
	}
	return nil
}
