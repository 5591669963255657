//go:build linux

// Package listening tells whether one of some processes listens on a TCP port.
//
// It connects to nobody: which sockets listen is in the table of a process's network
// namespace, whose they are in the process's list of open files. So it makes no difference
// whether a container has a network of its own, shares one with others, or has the host's,
// where another program may listen on the port.
//
// It keeps nothing and has no goroutines.
package listening

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/prometheus/procfs"
)

// stateListen is what the tables call a socket that listens (TCP_LISTEN).
const stateListen = 10

// On says whether one of the processes listens on a TCP port, of any address. Processes may
// have ended meanwhile.
func On(port uint16, pids ...int) (bool, error) {
	tables := make(map[uint32]map[string]bool) // by the namespace
	for _, pid := range pids {
		found, err := one(pid, port, tables)
		if found {
			return true, nil
		}
		// ENOENT and ESRCH: it has ended.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return false, fmt.Errorf("look for sockets of process %d: %w", pid, err)
		}
	}
	return false, nil
}

func one(pid int, port uint16, tables map[uint32]map[string]bool) (bool, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return false, err
	}
	namespaces, err := p.Namespaces()
	if err != nil {
		return false, err
	}
	ns := namespaces["net"].Inode
	sockets, known := tables[ns]
	if !known {
		if sockets, err = table(pid, port); err != nil {
			return false, err
		}
		tables[ns] = sockets
	}
	if len(sockets) == 0 {
		return false, nil
	}
	open, err := p.FileDescriptorTargets()
	if err != nil {
		return false, err
	}
	for _, target := range open {
		if sockets[target] {
			return true, nil
		}
	}
	return false, nil
}

// table returns the sockets that listen on a port in the network namespace of a process, as
// links to them in /proc read.
func table(pid int, port uint16) (map[string]bool, error) {
	of, err := procfs.NewFS(filepath.Join(procfs.DefaultMountPoint, strconv.Itoa(pid)))
	if err != nil {
		return nil, err
	}
	four, err := of.NetTCP()
	if err != nil {
		return nil, err
	}
	six, err := of.NetTCP6()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return nil, err
	}
	sockets := make(map[string]bool)
	for _, socket := range append(four, six...) {
		if socket.St == stateListen && socket.LocalPort == uint64(port) {
			sockets[fmt.Sprintf("socket:[%d]", socket.Inode)] = true
		}
	}
	return sockets, nil
}
