package bench

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
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
			if now, err := lab.PeakOf(cmd.Process.Pid); err == nil { // or it has ended
				peak = max(peak, now)
			}
		}
	}
}
