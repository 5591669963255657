package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// asDaemon in the environment of this test makes it the program.
const asDaemon = "IPCS_TEST_DAEMON"

// asReader makes it one that reads the files of a folder.
const asReader = "IPCS_TEST_READER"

// publisher is a node that has images.
func newPublisher(t *testing.T) *embedded.Node {
	t.Helper()
	node, err := embedded.Open(t.Context(), embedded.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}, ipfstest.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// crashDaemon is a daemon in a process of its own, and the content store of a containerd.
type crashDaemon struct {
	t   *testing.T
	cfg config
	log string
	cmd *exec.Cmd
}

// newCrashDaemon starts one that knows these peers.
func newCrashDaemon(t *testing.T, peers []string) *crashDaemon {
	t.Helper()
	dir := t.TempDir()
	run, err := os.MkdirTemp("", "crash") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &crashDaemon{t: t, cfg: defaultConfig(), log: filepath.Join(dir, "log")}
	d.cfg.Root, d.cfg.State, d.cfg.Node.Peers = filepath.Join(dir, "root"), run, peers
	d.cfg.Containerd.Address = filepath.Join(run, "containerd.sock")
	store, err := local.NewLabeledStore(filepath.Join(dir, "content"), &memoryLabels{all: make(map[digest.Digest]map[string]string)})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	contentapi.RegisterContentServer(server, contentserver.New(store))
	leasesapi.RegisterLeasesServer(server, anyLease{})
	serveUnix(t, d.cfg.Containerd.Address, server)
	t.Cleanup(func() {
		if d.cmd != nil {
			d.stop()
		}
		if t.Failed() {
			text, err := os.ReadFile(d.log)
			t.Logf("%s %v", text[max(0, len(text)-20_000):], err)
		}
		// It is left mounted where a test has failed, and nobody answers there.
		if err := unix.Unmount(filepath.Join(run, "mounts", "lazy"), unix.MNT_FORCE|unix.MNT_DETACH); err == nil && !t.Failed() {
			t.Error("the lazy file system was left")
		}
		if err := os.RemoveAll(run); err != nil {
			t.Error(err)
		}
	})
	d.start()
	return d
}

func (d *crashDaemon) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// command runs the program against this daemon.
func (d *crashDaemon) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append(args, "--state", d.cfg.State)...)
	cmd.Env = append(os.Environ(), asDaemon+"=1")
	return cmd
}

// start starts the daemon, and returns when it is ready.
func (d *crashDaemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	d.must(err)
	defer log.Close()
	args := []string{"--root", d.cfg.Root, "--listen", "/ip4/127.0.0.1/tcp/0", "--containerd", d.cfg.Containerd.Address}
	for _, p := range d.cfg.Node.Peers {
		args = append(args, "--peer", p)
	}
	d.cmd = d.command(args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.must(d.cmd.Start())
	_, err = fetchStatusJSON(d.t.Context(), d.cfg.apiSocket(), 30*time.Second)
	d.must(err)
}

func (d *crashDaemon) kill() {
	d.t.Helper()
	d.must(d.cmd.Process.Kill())
	_ = d.cmd.Wait() // it was killed
	d.cmd = nil
}

func (d *crashDaemon) stop() {
	d.t.Helper()
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		d.t.Errorf("stop the daemon: %v", err)
	}
}

func (d *crashDaemon) status() *status {
	d.t.Helper()
	body, err := fetchStatusJSON(d.t.Context(), d.cfg.apiSocket(), 0)
	d.must(err)
	var s status
	d.must(json.Unmarshal(body, &s))
	return &s
}

// until waits for what is to come.
func (d *crashDaemon) until(is func(*status) bool) {
	d.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is(d.status()) {
		select {
		case <-tick.C:
		case <-d.t.Context().Done():
			d.t.Fatal("it does not come")
		}
	}
}

// anyLease gives leases that mean nothing.
type anyLease struct {
	leasesapi.UnimplementedLeasesServer
}

func (anyLease) Create(_ context.Context, r *leasesapi.CreateRequest) (*leasesapi.CreateResponse, error) {
	return &leasesapi.CreateResponse{Lease: &leasesapi.Lease{ID: r.ID, Labels: r.Labels}}, nil
}

func (anyLease) Delete(context.Context, *leasesapi.DeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

// memoryLabels are the labels of blobs.
type memoryLabels struct {
	mu  sync.Mutex
	all map[digest.Digest]map[string]string
}

func (m *memoryLabels) Get(d digest.Digest) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.all[d]), nil
}

func (m *memoryLabels) Set(d digest.Digest, labels map[string]string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[d] = maps.Clone(labels)
	return nil
}

func (m *memoryLabels) Update(d digest.Digest, update map[string]string) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all[d] == nil {
		m.all[d] = make(map[string]string)
	}
	maps.Copy(m.all[d], update)
	return maps.Clone(m.all[d]), nil
}
