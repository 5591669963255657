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
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/metafs"
)

// imagesCommand is what the daemon runs where the kernel mounts no EROFS images, to have them
// served over FUSE.
func imagesCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:    "images",
		Short:  "serve metadata images while daemons come and go (the daemon runs it)",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if detach {
				return imagesProcess(os.NewFile(inherited, "listener")).Start()
			}
			return serveImages(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&detach, "detach", false, "start to serve and exit")
	return cmd
}

func imagesProcess(ln *os.File, more ...string) *exec.Cmd {
	return helper([]*os.File{ln}, append([]string{"images"}, more...)...)
}

// serveImages serves until no daemon and no mount is left.
func serveImages(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	outlive(log)
	ln, err := inheritedListener()
	if err != nil {
		return err
	}
	return metafs.NewServer(ln, log).Serve(ctx)
}

// An imageServer mounts images through the process that serves them, which is started if
// there is none when it is needed first.
type imageServer struct {
	state  string // folder of its socket
	listen func(socket string) (net.Listener, error)

	mu     sync.Mutex
	client *metafs.Client
}

// mount is a snapshotter.ServeImage. If the process has been killed, it starts another.
func (s *imageServer) mount(path, dir string, data ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		err := s.client.Mount(path, dir, data...)
		if !errors.Is(err, metafs.ErrGone) {
			return err
		}
		if err := s.client.Close(); err != nil {
			return err
		}
		s.client = nil
	}
	client, err := connectImages(s.state, s.listen)
	if err != nil {
		return fmt.Errorf("start the process that serves images: %w", err)
	}
	s.client = client
	return client.Mount(path, dir, data...)
}

// close lets the process go when nothing is mounted.
func (s *imageServer) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

// listenPackets returns what listens on the socket of that process.
func listenPackets(ctx context.Context) func(socket string) (net.Listener, error) {
	return func(socket string) (net.Listener, error) { return listenSocket(ctx, "unixpacket", socket) }
}

// connectImages connects to the process that a daemon before has left, or to a new one. One
// in another mount namespace would look for files there.
func connectImages(state string, listen func(socket string) (net.Listener, error)) (*metafs.Client, error) {
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &namespace); err != nil {
		return nil, err
	}
	socket := filepath.Join(state, fmt.Sprintf("images-%d-%d.sock", metafs.Version, namespace.Ino))
	client, err := metafs.Dial(socket)
	if err == nil {
		return client, nil
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, metafs.ErrGone) {
		return nil, err
	}
	ln, err := listen(socket)
	if err != nil {
		return nil, err
	}
	// While this process has the socket open, too, nobody would refuse a server that is dead.
	if err := errors.Join(startImages(ln), ln.Close()); err != nil {
		return nil, err
	}
	return metafs.Dial(socket)
}

// startImages starts the server by a process that ends at once.
func startImages(ln net.Listener) error {
	f, err := listenerFile(ln)
	if err != nil {
		return err
	}
	defer f.Close()
	return imagesProcess(f, "--detach").Run()
}
