package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	// crashes is how often something is killed, unless IPCS_KILLS says otherwise.
	crashes = 16
	// crashWorkers pull, run, commit and remove images side by side, each its own.
	crashWorkers = 3
	// checkEvery so many kills all that is stored is hashed.
	checkEvery = 8
)

// crashTest is a daemon that is killed, and those who use it meanwhile.
type crashTest struct {
	*crashDaemon
	random  *rand.Rand
	workers []*crashWorker
	kinds   map[string]int // of kills that there were
}

// TestCrash kills the daemon, the process that holds its FUSE mount, or both, at random moments
// of pulls, reads, commits, removals and collections. Each time nothing that was acknowledged is
// lost, nothing that was removed is there, and there are no mounts, processes and folders but
// those of snapshots; when only one of the two was killed, no read has failed.
func TestCrash(t *testing.T) {
	hosttest.Root(t)
	publisher := newPublisher(t)
	c := &crashTest{crashDaemon: newCrashDaemon(t, publisher.Addrs()), kinds: make(map[string]int)}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c.random = rand.New(rand.NewPCG(seed, 0))
	c.prepareWorkers(seed, publisher)
	c.connect()
	for i := range hosttest.Kills(t, crashes) {
		c.round()
		c.check()
		if i%checkEvery == checkEvery-1 {
			c.hash()
		}
		if t.Failed() {
			t.Fatalf("after %d kills", i+1)
		}
	}
	steps := 0
	for _, w := range c.workers {
		steps += w.steps
	}
	t.Logf("%v kills, %d steps that were acknowledged: %v", c.kinds, steps, c.counts())
	c.hash()
	c.removeAll()
}

// counts adds up the workers' counts of steps.
func (c *crashTest) counts() map[string]int {
	all := make(map[string]int)
	for _, w := range c.workers {
		for what, n := range w.counts {
			all[what] += n
		}
	}
	return all
}

// prepareWorkers publishes the images.
func (c *crashTest) prepareWorkers(seed uint64, node ipfs.Node) {
	for i := range crashWorkers {
		w := &crashWorker{
			t: c.t, daemon: c.crashDaemon, name: fmt.Sprint("w", i), dir: c.t.TempDir(), counts: make(map[string]int),
			random: rand.New(rand.NewPCG(seed, uint64(i)+1)), have: make(map[string]crashSnapshot), pins: make(map[string]bool),
		}
		for j := range 2 {
			w.images = append(w.images, makeCrashImage(c.t, node, fmt.Sprintf("%d-%d-%d", seed, i, j)))
		}
		c.workers = append(c.workers, w)
	}
}

// connect gives the workers a connection to the daemon, which is a new one.
func (c *crashTest) connect() {
	c.t.Helper()
	conns := make([]*grpc.ClientConn, 2)
	for i, socket := range []string{c.cfg.snapshotterSocket(), c.cfg.diffSocket()} {
		var err error
		conns[i], err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		c.must(err)
	}
	for _, w := range c.workers {
		if w.close != nil {
			w.close()
		}
	}
	once := sync.OnceFunc(func() { // nothing is to be said to a daemon that is dead
		_ = conns[0].Close()
		_ = conns[1].Close()
	})
	c.t.Cleanup(once)
	for _, w := range c.workers {
		w.close = once
		w.connect(proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conns[0]), "ipcs"), conns[1])
	}
}

// round lets the workers work, kills something, and has them find out what became of what they
// were about.
func (c *crashTest) round() {
	c.t.Helper()
	kind := [...]string{"daemon", "daemon", "daemon", "relay", "relay", "both"}[c.random.IntN(6)]
	c.kinds[kind]++
	relay := c.relayPID()
	stop := make(chan struct{})
	var working sync.WaitGroup
	for _, w := range c.workers {
		working.Go(func() { w.work(stop) })
	}
	c.pause()
	if kind != "daemon" {
		c.must(syscall.Kill(relay, syscall.SIGKILL))
	}
	if kind != "relay" {
		c.kill()
		c.start()
	} else {
		c.until(func(s *status) bool { return s.Lazy.RelayPID != 0 && s.Lazy.RelayPID != relay })
		c.pause()
	}
	close(stop)
	working.Wait()
	if kind != "relay" {
		c.connect()
	}
	for _, w := range c.workers {
		w.settle(kind)
	}
}

func (c *crashTest) pause() {
	time.Sleep(time.Duration(c.random.IntN(400)) * time.Millisecond)
}

func (c *crashTest) relayPID() int {
	return c.status().Lazy.RelayPID
}

// check finds the snapshots that there are to be, and nothing else.
func (c *crashTest) check() {
	t := c.t
	t.Helper()
	list := make(map[string]snapshots.Info)
	w := c.workers[0]
	c.must(w.walk(func(_ context.Context, info snapshots.Info) error {
		list[crashName(info)] = info
		return nil
	}))
	want := 0
	for _, w := range c.workers {
		want += len(w.have)
		for name, s := range w.have {
			if info, ok := list[name]; !ok || info.Kind != s.kind {
				t.Errorf("snapshot %s was acknowledged, and is %v", name, info)
			}
		}
		w.checkPins()
	}
	if len(list) != want {
		t.Errorf("%d snapshots, want %d: %v", len(list), want, list)
	}
	c.must(w.sn.(snapshots.Cleaner).Cleanup(w.ctx))
	c.folders(len(list))
	c.mounts()
}

// folders finds a folder for each snapshot, and images only of chains that there are.
func (c *crashTest) folders(want int) {
	c.t.Helper()
	root := filepath.Join(c.cfg.Root, "snapshotter")
	dirs, err := filepath.Glob(filepath.Join(root, "snapshots", "*", "fs"))
	c.must(err)
	all, err := os.ReadDir(filepath.Join(root, "snapshots"))
	c.must(err)
	if len(dirs) != want || len(all) != want {
		c.t.Errorf("%d folders, %d of snapshots, for %d snapshots", len(all), len(dirs), want)
	}
	images, err := os.ReadDir(filepath.Join(root, "chains"))
	c.must(err)
	layers := 0
	for _, w := range c.workers {
		for _, s := range w.have {
			if s.layer {
				layers++
			}
		}
	}
	if len(images) > layers+1 { // one file names the boot
		c.t.Errorf("%d images of chains for %d layers", len(images), layers)
	}
	for _, e := range images {
		if strings.Contains(e.Name(), "new-") {
			c.t.Errorf("an image is left that was not completed: %s", e.Name())
		}
	}
}

// mounts finds one FUSE mount, one process that holds it, and images of chains mounted once.
func (c *crashTest) mounts() {
	c.t.Helper()
	state := c.cfg.State
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(state))
	c.must(err)
	at := make(map[string]int)
	for _, m := range found {
		rel, err := filepath.Rel(filepath.Join(state, "mounts"), m.Mountpoint)
		c.must(err)
		if at[rel]++; at[rel] > 1 || rel != "lazy" && filepath.Dir(rel) != "chains" {
			c.t.Errorf("mounted, %d times: %s (%s)", at[rel], rel, m.FSType)
		}
	}
	if at["lazy"] != 1 {
		c.t.Errorf("%d lazy file systems", at["lazy"])
	}
	if relays := relaysOf(c.t, state); relays != 1 {
		c.t.Errorf("%d processes hold the FUSE mount", relays)
	}
	if !c.status().Lazy.RelaySpare {
		c.t.Error("nobody keeps the device")
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	c.must(err)
	for _, file := range backing {
		text, err := os.ReadFile(file)
		if err == nil && bytes.HasPrefix(text, []byte(c.cfg.Root)) {
			c.t.Errorf("a loop device is left of %s", text)
		}
	}
}

// relaysOf counts the processes that hold a mount below a folder.
func relaysOf(t testing.TB, state string) (n int) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		text, err := os.ReadFile(c) // it may have ended
		if err == nil && bytes.Contains(text, []byte("\x00relay\x00--dir\x00"+state+"/")) && !bytes.Contains(text, []byte("--detach")) && !bytes.Contains(text, []byte("--spare")) {
			n++
		}
	}
	return n
}

// hash has all that is stored hashed.
func (c *crashTest) hash() {
	c.t.Helper()
	out, err := c.command("check").CombinedOutput()
	c.must(err)
	for _, wrong := range []string{"damaged", "unreadable", "LOST", "not there"} {
		if strings.Contains(string(out), wrong) {
			c.t.Errorf("check says %s", out)
			return
		}
	}
}

// removeAll removes all snapshots: of what was fetched nothing is left, and after the daemon
// nothing is mounted.
func (c *crashTest) removeAll() {
	c.t.Helper()
	for _, w := range c.workers {
		w.removeAll()
	}
	c.check()
	c.until(func(*status) bool {
		left := 0
		for _, w := range c.workers {
			left += w.fetchedObjects(c.cfg.Root)
		}
		return left == 0
	})
	c.stop()
	state := c.cfg.State
	if found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(state)); err != nil || len(found) > 0 {
		c.t.Errorf("left mounted: %v, %v", found, err)
	}
	for n := relaysOf(c.t, state); n > 0; n = relaysOf(c.t, state) {
		time.Sleep(10 * time.Millisecond) // it ends when it has seen that it is unmounted
	}
	left, err := os.ReadDir(filepath.Join(c.cfg.Root, "repo", "partial"))
	c.must(err)
	if len(left) > 0 {
		c.t.Errorf("files in the making are left: %v", left)
	}
}

// unmount takes a container's mount away, whatever it is used for.
func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }
