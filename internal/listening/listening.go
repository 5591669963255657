//go:build linux

// Package listening tells whether one of some processes listens on a TCP port.
//
// It connects to nobody: which sockets listen is in the table of a process's network
// namespace, whose they are in the process's list of open files. So it makes no difference
// whether a container has a network of its own, shares one with others, or has the host's,
// where another program may listen on the port. The tables are those in /proc, which every
// kernel has; to ask by netlink, one would have to enter the namespace.
//
// It keeps nothing and has no goroutines.
package listening

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// stateListen is what the tables call a socket that listens (TCP_LISTEN).
const stateListen = "0A"

// On says whether one of the processes listens on a TCP port, of any address. Processes may
// have ended meanwhile.
func On(port uint16, pids ...int) (bool, error) {
	tables := make(map[string]map[string]bool) // by the namespace
	for _, pid := range pids {
		found, err := one(filepath.Join("/proc", strconv.Itoa(pid)), port, tables)
		if found {
			return true, nil
		}
		// ENOENT, ESRCH, and EINVAL of the tables: it has ended.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EINVAL) {
			return false, fmt.Errorf("look for the sockets of process %d: %w", pid, err)
		}
	}
	return false, nil
}

// one looks at the process whose folder is dir.
func one(dir string, port uint16, tables map[string]map[string]bool) (bool, error) {
	namespace, err := os.Readlink(filepath.Join(dir, "ns", "net"))
	if err != nil {
		return false, err
	}
	sockets, known := tables[namespace]
	if !known {
		sockets = make(map[string]bool)
		for _, name := range []string{"tcp", "tcp6"} {
			// A kernel without IPv6 has no tcp6.
			if err := readTable(filepath.Join(dir, "net", name), port, sockets); err != nil && !(name == "tcp6" && errors.Is(err, fs.ErrNotExist)) {
				return false, err
			}
		}
		tables[namespace] = sockets
	}
	if len(sockets) == 0 {
		return false, nil
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false, err
	}
	for _, fd := range open {
		// One that was closed meanwhile is none.
		if target, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && sockets[target] {
			return true, nil
		}
	}
	return false, nil
}

func readTable(path string, port uint16, sockets map[string]bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return parseTable(f, port, sockets)
}

// parseTable adds the sockets that listen on a port, as links to them in /proc read. The
// columns are "sl: local:port remote:port state queues timer retransmits uid timeout inode", numbers
// but for the last ones in hexadecimal digits.
func parseTable(table io.Reader, port uint16, sockets map[string]bool) error {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) < 10 || columns[3] != stateListen {
			continue // as the line of titles
		}
		_, digits, _ := strings.Cut(columns[1], ":")
		local, err := strconv.ParseUint(digits, 16, 16)
		if err != nil {
			return fmt.Errorf("local address %q: %w", columns[1], err)
		}
		inode, err := strconv.ParseUint(columns[9], 10, 64)
		if err != nil {
			return fmt.Errorf("inode %q: %w", columns[9], err)
		}
		if local == uint64(port) {
			sockets[fmt.Sprintf("socket:[%d]", inode)] = true
		}
	}
	return lines.Err()
}
