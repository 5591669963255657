package tools

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// aptLock serialises the runs of this project: apt itself fails at once when
// another one runs.
const aptLock = "/run/lock/ipcs-lab-apt"

// LabCommands are the commands that the lab runs, and the packages they come in.
func LabCommands() map[string]string {
	return map[string]string{
		"ip":         "iproute2",
		"nsenter":    "util-linux",
		"mmdebstrap": "mmdebstrap",
		"fsck.erofs": "erofs-utils",   // a second opinion on our images
		"gcc":        "gcc libc6-dev", // go test -race

		"rootlesskit": "rootlesskit", // containerd without root rights
		"newuidmap":   "uidmap",
	}
}

// headers are for runc.
func headers() map[string]string {
	return map[string]string{
		"gcc": "gcc libc6-dev", "pkg-config": "pkg-config", "/usr/include/seccomp.h": "libseccomp-dev",
	}
}

// Packages installs Debian packages for commands or files that the machine lacks. The map
// goes from a command, or the path of a file, to the packages, separated by spaces, that
// bring it.
func Packages(ctx context.Context, commands map[string]string) error {
	if len(missing(commands)) == 0 {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("these Debian packages are needed, and only root can install them: %s",
			strings.Join(missing(commands), " "))
	}
	lock, err := os.OpenFile(aptLock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", aptLock, err)
	}
	packages := missing(commands) // again: another run may have installed them meanwhile
	if len(packages) == 0 {
		return nil
	}
	if err := apt(ctx, "update", "-q"); err != nil {
		return err
	}
	return apt(ctx, append([]string{"install", "-qy", "--no-install-recommends"}, packages...)...)
}

// missing returns the packages for the files that are not there and the commands that are
// not on PATH.
func missing(commands map[string]string) []string {
	var packages []string
	for command, names := range commands {
		var err error
		if filepath.IsAbs(command) {
			_, err = os.Stat(command)
		} else {
			_, err = exec.LookPath(command)
		}
		if err != nil {
			packages = append(packages, strings.Fields(names)...)
		}
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
