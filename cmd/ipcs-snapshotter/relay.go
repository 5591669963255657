package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/relay"
)

// The relay is this program too: a process of its own that holds the FUSE mount. The
// daemon starts it once and leaves it running for the daemons that follow. It is given the
// socket that it listens on and the device of the mount.
const relayDevice = inherited + 1

// relayCommand is what the daemon runs to have a relay.
func relayCommand() *cobra.Command {
	var dir string
	var detach bool
	cmd := &cobra.Command{
		Use:    "relay",
		Short:  "hold the mount of lazy files while daemons come and go (the daemon runs it)",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if detach {
				return detachRelay(dir)
			}
			return runRelay(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where the file system is mounted")
	cmd.Flags().BoolVar(&detach, "detach", false, "start the relay and exit")
	return cmd
}

// runRelay holds the mount at dir until somebody unmounts it.
func runRelay(ctx context.Context, dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	outlive(log)
	ln, err := inheritedListener()
	if err != nil {
		return err
	}
	return relay.New(dir, os.NewFile(relayDevice, "/dev/fuse"), ln, relay.Options{Logger: log}).Serve(ctx)
}

// detachRelay starts the relay as a process that belongs to nobody.
func detachRelay(dir string) error {
	return relayProcess(dir, os.NewFile(inherited, "listener"), os.NewFile(relayDevice, "/dev/fuse")).Start()
}

func relayProcess(dir string, ln, dev *os.File, more ...string) *exec.Cmd {
	return helper([]*os.File{ln, dev}, append([]string{"relay", "--dir", dir}, more...)...)
}

// connectRelay connects to the relay that a daemon before has left, or to a new one that
// holds a mount at dir.
func connectRelay(socket, dir string, log *slog.Logger) (*relay.Client, error) {
	client, err := relay.Dial(socket)
	switch {
	case err == nil:
		if err := mountedHere(dir); err != nil {
			return nil, errors.Join(err, client.Close())
		}
		log.Info("took over the lazy files", "nodes", len(client.Known()))
		return client, nil
	case errors.Is(err, relay.ErrVersion):
		return nil, fmt.Errorf("%w: end the containers that run on ipcs images, and unmount %s", err, dir)
	case !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	ln, err := listenUnix(socket)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	dev, err := relay.Mount(dir)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	if err := startRelay(dir, ln, dev); err != nil {
		return nil, fmt.Errorf("start the process that holds the FUSE mount: %w", err)
	}
	return relay.Dial(socket)
}

// mountedHere finds that the mount of a relay is one of this mount namespace. A rootless
// daemon may have left it in a namespace that nobody is in any more.
func mountedHere(dir string) error {
	// The mount itself is not looked at: it waits for this process.
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return err
	}
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(filepath.Join(parent, filepath.Base(dir))))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("the process that holds the FUSE mount (\"relay --dir %s\") has it in another mount namespace: end the containers there, and that process", dir)
	}
	return err
}

// startRelay starts the relay by a process that ends at once, so that nobody has to wait
// for the relay.
func startRelay(dir string, ln net.Listener, dev *os.File) error {
	f, err := listenerFile(ln)
	if err != nil {
		return err
	}
	defer f.Close()
	return relayProcess(dir, f, dev, "--detach").Run()
}
