package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/relay"
)

// The relay is this program too: a process of its own that holds the FUSE mount. The
// daemon starts it once and leaves it running for the daemons that follow. It is given the
// socket that it listens on, the device of the mount, and what a relay before knew of it.
const (
	relayDevice = inherited + 1
	relayState  = inherited + 2
)

// relaySettles is how long after its start the relay gives back what that has needed.
const relaySettles = 5 * time.Second

// relayCommand is what the daemon runs to have a relay.
func relayCommand() *cobra.Command {
	var dir, spare string
	var detach bool
	cmd := &cobra.Command{
		Use:    "relay",
		Short:  "hold the mount of lazy files while daemons come and go (the daemon runs it)",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case detach:
				return relayProcess(dir, inheritedFiles(), "--spare", spare).Start()
			case spare != "":
				return keepSpare(cmd.Context(), dir, spare)
			}
			return runRelay(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where the file system is mounted")
	cmd.Flags().StringVar(&spare, "spare", "", "start the relay, keep its device, and give that away at this socket when the relay dies")
	cmd.Flags().BoolVar(&detach, "detach", false, "have another process do so, and exit")
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
	file := os.NewFile(relayState, "state")
	state, err := relay.ReadState(bufio.NewReader(file))
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	r := relay.New(dir, os.NewFile(relayDevice, "/dev/fuse"), ln, relay.Options{State: state, Logger: log})
	settled := time.AfterFunc(relaySettles, func() {
		if err := relay.Trim(); err != nil {
			log.Info("the relay takes more memory than it needs", "err", err)
		}
	})
	defer settled.Stop()
	return r.Serve(ctx)
}

// spareSocket is where the device is to be had when the relay at a socket has died.
func spareSocket(relay string) string { return relay + ".spare" }

// inheritedFiles are what a relay is given.
func inheritedFiles() []*os.File {
	return []*os.File{os.NewFile(inherited, "listener"), os.NewFile(relayDevice, "/dev/fuse"), os.NewFile(relayState, "state")}
}

// relayProcess is a relay, or what is to start one.
func relayProcess(dir string, files []*os.File, more ...string) *exec.Cmd {
	return helper(files, append([]string{"relay", "--dir", dir}, more...)...)
}

// keepSpare starts a relay, and keeps its device until it has ended the file system, or somebody
// takes its place.
func keepSpare(ctx context.Context, dir, socket string) error {
	// It listens before there is a relay that could die. One that it takes the place of may have
	// left its socket.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ln, err := listenUnix(ctx, socket)
	if err != nil {
		return err
	}
	unixListener, ok := ln.(*net.UnixListener)
	if !ok {
		return errors.New("not a unix socket")
	}
	unixListener.SetUnlinkOnClose(false) // it may be another's by then
	files := inheritedFiles()
	child := relayProcess(dir, files)
	err = child.Start()
	// A socket that somebody else has open does not refuse who looks for a relay.
	if err := errors.Join(err, files[0].Close(), files[2].Close()); err != nil {
		return err
	}
	outlive(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	// It ends with the relay, and not before it: whoever ends both asks the relay, too.
	ctx, over := context.WithCancel(context.WithoutCancel(ctx))
	defer over()
	dead := make(chan struct{})
	var died error // set before dead is closed
	go func() {
		defer close(dead)
		if died = child.Wait(); died == nil {
			over()
		}
	}()
	trim := time.AfterFunc(relaySettles, func() { _ = relay.Trim() }) // the relay says what is wrong
	defer trim.Stop()
	err = relay.NewSpare(files[1], unixListener).Keep(ctx, dead)
	<-dead
	if died == nil { // or the socket may be another's by now
		err = errors.Join(err, os.Remove(socket))
	}
	return err
}

// connectRelay connects to the relay that a daemon before has left, or to a new one that
// holds a mount at dir.
func connectRelay(ctx context.Context, socket, dir string, log *slog.Logger) (*relay.Client, error) {
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
	// Its relay and the daemon have died together: nobody answers there any more.
	if err := relay.Abandon(dir); err != nil {
		return nil, fmt.Errorf("end the lazy file system at %s, whose processes have died: %w", dir, err)
	}
	dev, err := relay.Mount(dir)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return newRelay(ctx, socket, dir, dev, relay.State{})
}

// newRelay starts a relay for the file system at dir, and connects to it.
func newRelay(ctx context.Context, socket, dir string, dev *os.File, state relay.State) (*relay.Client, error) {
	ln, err := listenUnix(ctx, socket)
	if err != nil {
		return nil, err
	}
	// While this process has the socket open, too, nobody would refuse a relay that is dead.
	err = startRelay(dir, spareSocket(socket), ln, dev, state)
	if err := errors.Join(err, ln.Close()); err != nil {
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
func startRelay(dir, spare string, ln net.Listener, dev *os.File, state relay.State) error {
	f, err := listenerFile(ln)
	if err != nil {
		return err
	}
	defer f.Close()
	known, err := stateFile(state)
	if err != nil {
		return err
	}
	defer known.Close()
	return relayProcess(dir, []*os.File{f, dev, known}, "--detach", "--spare", spare).Run()
}

// stateFile returns a file in memory to read a state from.
func stateFile(state relay.State) (*os.File, error) {
	fd, err := unix.MemfdCreate("relay", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "state")
	if _, err = state.WriteTo(f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
