package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// peakInterval is how often outputPeak looks.
const peakInterval = 10 * time.Millisecond

// outputPeak runs a command and returns the most memory that it held at any time, in
// bytes. It asks the kernel while the command runs: the kernel keeps that maximum, so that
// only what is added in the last moments can be missed. What wait4(2) tells when the
// command has ended is of no use: it counts the memory of the process that started it.
func outputPeak(cmd *exec.Cmd) (int64, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ticker := time.NewTicker(peakInterval)
	defer ticker.Stop()
	var peak int64
	for {
		select {
		case err := <-ended:
			if err != nil {
				return 0, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
			}
			if peak == 0 {
				return 0, fmt.Errorf("%s ended before its memory was looked at", strings.Join(cmd.Args, " "))
			}
			return peak, nil
		case <-ticker.C:
			peak = max(peak, highWater(cmd.Process.Pid))
		}
	}
}

// highWater returns the most memory that a process has held so far, and 0 if it has ended.
func highWater(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
			return kilobytes << 10
		}
	}
	return 0
}
