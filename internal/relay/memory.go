//go:build linux

package relay

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim gives back the memory that only the start of this process has needed: what the program
// initialized, and the pages of its file that this has touched. The program may be large, the
// relay uses little of it, and has what it uses mapped again as it goes.
func Trim() error {
	// What is held is small, so that collecting it often costs nothing.
	debug.SetGCPercent(20)
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	var errs []error
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var rights string
		if !strings.HasSuffix(lines.Text(), " "+exe) {
			continue
		}
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil {
			errs = append(errs, err)
			continue
		}
		if strings.Contains(rights, "w") {
			continue // variables
		}
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		if errno != 0 {
			errs = append(errs, fmt.Errorf("give back the pages of the program: %w", errno))
		}
	}
	return errors.Join(errs...)
}

// Memory is what a process holds in memory: what is its own, and pages of files, which it shares
// with others that run the same program, and which the kernel takes back when it needs them.
type Memory struct{ Own, Files int64 }

// Memory returns the number of the relay's process, and its memory.
func (c *Client) Memory() (pid int, m Memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		return 0, m, err
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		name, value, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscan(value, &kilobytes); err != nil {
			continue
		}
		switch name {
		case "RssAnon":
			m.Own = kilobytes << 10
		case "RssFile":
			m.Files = kilobytes << 10
		}
	}
	return c.pid, m, nil
}
