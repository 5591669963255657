package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Machine is a network namespace with a disk of its own: a folder.
type Machine struct {
	Name string

	lab    *Lab
	dir    string   // its disk
	run    string   // its sockets and mounts
	addr   string   // IP address; "" on loopback
	holder *Process // sleeps in the namespace; nil on loopback
	plug   string   // the router's end of its link
}

// State returns the folder of the machine's sockets and mounts, which is in memory and
// has a short name.
func (m *Machine) State() string { return m.run }

// Dir returns the machine's disk.
func (m *Machine) Dir() string { return m.dir }

// temp is the folder for temporary files, which may be large: on the disk.
func (m *Machine) temp() string { return filepath.Join(m.dir, "tmp") }

// Addr returns the IP address under which other machines reach this one.
func (m *Machine) Addr() string {
	if m.holder == nil {
		return "127.0.0.1"
	}
	return m.addr
}

// Command is a command that runs on the machine: in its network namespace, with the
// lab's programs on PATH and temporary files in the machine's folders. The caller starts it and waits for it.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	path := m.path()
	if file, err := m.program(name); err == nil {
		name = file
	}
	if m.holder != nil {
		args = append([]string{"--net=" + m.holder.netns(), "--", name}, args...)
		name = "nsenter"
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second // for what it started and did not end
	// What containerd and ctr mount for a moment is in one of these folders. In the
	// machine's own it is unmounted with the lab when they are killed meanwhile.
	cmd.Env = append(os.Environ(), "PATH="+path, "XDG_RUNTIME_DIR="+m.run, "TMPDIR="+m.temp())
	return cmd
}

// path has the lab's programs first.
func (m *Machine) path() string {
	return m.lab.opts.Bin + ":" + m.lab.opts.Tools + ":" + os.Getenv("PATH")
}

// program finds a program's file.
func (m *Machine) program(name string) (string, error) {
	for _, dir := range filepath.SplitList(m.path()) {
		if file := filepath.Join(dir, name); executable(file) {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// SetRate changes what the machine's link carries in each direction, in Mbit/s. It
// counts for packets that are sent afterwards.
func (m *Machine) SetRate(ctx context.Context, mbit int) error {
	if m.holder == nil {
		return fmt.Errorf("machine %s: a link of %d Mbit/s: %w", m.Name, mbit, errNoLink)
	}
	if err := m.lab.network.limit(ctx, m, mbit); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return nil
}

// Received returns the bytes that came to the machine over its link.
func (m *Machine) Received() (int64, error) { return m.counter(0) }

// Sent returns the bytes that the machine sent over its link.
func (m *Machine) Sent() (int64, error) { return m.counter(8) }

// counter reads one column of /proc/PID/net/dev, which shows the namespace of that
// process.
func (m *Machine) counter(column int) (int64, error) {
	if m.holder == nil {
		return 0, fmt.Errorf("machine %s: count bytes on its link: %w", m.Name, errNoLink)
	}
	file := fmt.Sprintf("/proc/%d/net/dev", m.holder.pid())
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if !ok || name != link {
			continue
		}
		var n int64
		_, err := fmt.Sscan(strings.Fields(rest)[column], &n)
		return n, err
	}
	return 0, fmt.Errorf("%s: no device %s", file, link)
}

// Port returns the port to listen on: the one asked for where the machine has its
// addresses to itself, else a free one.
func (m *Machine) Port(wanted int) (int, error) {
	if m.holder != nil {
		return wanted, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
