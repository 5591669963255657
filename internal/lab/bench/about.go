package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// machine describes this machine. Disks are below dir.
func machine(dir string) (result.Machine, error) {
	m := result.Machine{Cores: runtime.NumCPU(), Congestion: lab.Congestion}
	var err error
	if m.CPU, err = value("/proc/cpuinfo", "model name", ":"); err != nil {
		m.CPU = runtime.GOARCH // some architectures name no model
	}
	name, err := value("/etc/os-release", "PRETTY_NAME", "=")
	if err != nil {
		return m, err
	}
	m.OS = strings.Trim(name, `"`)
	if m.Memory, err = memory("MemTotal"); err != nil {
		return m, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(uts.Release[:])
	out, err := exec.Command("stat", "--file-system", "--format=%T", dir).Output()
	m.Disk = strings.TrimSpace(string(out))
	return m, err
}

// memory returns a figure of the kernel's, in bytes.
func memory(key string) (bytes int64, err error) {
	text, err := value("/proc/meminfo", key, ":")
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscan(text, &bytes); err != nil {
		return 0, fmt.Errorf("/proc/meminfo: %s: %w", key, err)
	}
	return bytes << 10, nil
}

// value returns what follows a key in a file of lines.
func value(file, key, separator string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		k, v, ok := strings.Cut(lines.Text(), separator)
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("%s: no %s", file, key)
}

// absent is the version of a program that would take part if it were there.
const absent = "none"

// versions asks the programs that take part, where they are there. containerd unpacks
// gzip with igzip or unpigz if one of them is: whether it is, is part of what is measured.
func versions(ctx context.Context, programs system.Programs) (map[string]string, error) {
	v := map[string]string{"go": runtime.Version()}
	for program, args := range map[string][]string{
		"containerd": {"--version"}, "runc": {"--version"}, "registry": {"--version"}, "ipfs": {"--version"},
		"mkfs.erofs": {"--version"}, "containerd-stargz-grpc": {"--version"},
		"tar": {"--version"}, "gzip": {"--version"}, "igzip": {"--version"}, "unpigz": {"--version"},
	} {
		path, err := programs(program)
		if err != nil {
			v[program] = absent // a system that needs it says so
			continue
		}
		out, err := exec.CommandContext(ctx, path, args...).Output()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		// mkfs.erofs 1.5 fails, as it knows no --version, but says it before.
		if err != nil && !strings.HasPrefix(line, program) {
			line = "unknown"
		}
		v[program] = strings.ReplaceAll(line, path, program) // results name no folders
	}
	return v, nil
}
