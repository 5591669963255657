package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// consumer adds a machine that runs containers, and returns the world as seen from there.
func (w *world) consumer(name string, opts lab.DaemonOptions) *world {
	w.t.Helper()
	status, err := w.source.Status(w.t.Context())
	w.must(err)
	opts.Peers = status.Addrs
	return w.on(labtest.Machine(w.t, w.lab, name), opts, lab.ContainerdOptions{})
}

// on starts what runs containers on a machine, and returns the world as seen from there.
func (w *world) on(m *lab.Machine, opts lab.DaemonOptions, run lab.ContainerdOptions) *world {
	w.t.Helper()
	ctx := w.t.Context()
	other := *w
	other.consume = m
	var err error
	other.daemon, err = m.StartDaemon(ctx, opts)
	w.must(err)
	run.Daemon = other.daemon
	other.containerd, err = m.StartContainerd(ctx, run)
	w.must(err)
	w.t.Cleanup(func() {
		if err := other.containerd.Stop(context.Background()); err != nil {
			w.t.Errorf("stop containerd: %v", err)
		}
		if w.t.Failed() {
			w.t.Logf("%s", other.daemon.Tail())
		}
	})
	return &other
}

// never is when what is waited for will not come any more.
const never = 3 * time.Minute

// wait asks again and again until done says so, and fails with what late says when that never happens.
func (w *world) wait(done func() bool, late func() string) {
	w.t.Helper()
	tick, end := time.NewTicker(50*time.Millisecond), time.After(never)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			w.t.Fatal("waited in vain: " + late())
		}
	}
}

// until waits for something of the daemon's status.
func (w *world) until(what string, done func(*lab.Status) bool) (status *lab.Status) {
	w.t.Helper()
	w.wait(func() bool {
		var err error
		status, err = w.daemon.Status(w.t.Context())
		w.must(err)
		return done(status)
	}, func() string { return fmt.Sprintf("%s: %+v", what, status) })
	return status
}

// TestProfile records what a container reads on one machine, puts that into the image, and
// finds it on another machine before anybody reads it there, though that had the image before.
func TestProfile(t *testing.T) {
	layout := labtest.Image(t, "debian")
	w := newWorld(t, "profile", 0)
	first := w.consumer("first", lab.DaemonOptions{Window: time.Minute})
	command := []string{"python3", "-c", "import json, ssl, http.server, sqlite3; print(6*7)"}
	plain := w.push(layout)
	ref := w.convert(plain)
	first.pull(ref, "ipcs")
	if out := first.run("first", ref, "ipcs", command...); out != "42\n" {
		t.Fatalf("output %q", out)
	}
	before, err := first.daemon.Status(t.Context())
	w.must(err)

	file := filepath.Join(t.TempDir(), "python.profile")
	first.export(file)
	again := ref + "-profile"
	_, err = lab.Output(w.publisher.Command(t.Context(), "convert", "--mediatype", "unixfs", "--plain-http",
		"--ipfs-api", w.source.API, "--profile", file, plain, again))
	w.must(err)

	second := w.consumer("second", lab.DaemonOptions{})
	second.pull(ref, "ipcs") // its snapshots name no profile, and stay
	second.pull(again, "ipcs")
	id := w.id("second")
	_, err = lab.Output(second.containerd.Ctr(t.Context(), append([]string{"container", "create", "--snapshotter", "ipcs", again, id}, command...)...))
	w.must(err)
	second.logged("got the files of the profile")
	out, err := lab.Output(second.containerd.Ctr(t.Context(), "task", "start", id))
	w.must(err)
	if out != "42\n" {
		t.Errorf("output %q", out)
	}
	after, err := second.daemon.Status(t.Context())
	w.must(err)
	t.Logf("FUSE: %d reads without a profile, %d with", before.Lazy.Reads, after.Lazy.Reads)
	if before.Lazy.Reads < 100 || after.Lazy.Reads*20 > before.Lazy.Reads {
		t.Errorf("FUSE: %d reads without a profile, %d with", before.Lazy.Reads, after.Lazy.Reads)
	}
}

// export waits for the profile of a container that has ended, and writes it to a file.
func (w *world) export(file string) {
	w.t.Helper()
	w.logged("recorded a profile")
	_, err := lab.Output(w.daemon.Command(w.t.Context(), "profile", "export", "--output", file))
	w.must(err)
	list, err := lab.Output(w.daemon.Command(w.t.Context(), "profile", "list"))
	w.must(err)
	w.t.Logf("%s", list)
}

// logged waits until the daemon has said something.
func (w *world) logged(words string) {
	w.t.Helper()
	w.wait(func() bool {
		log, err := os.ReadFile(w.daemon.Log())
		w.must(err)
		return strings.Contains(string(log), words)
	}, func() string { return fmt.Sprintf("the daemon says %q", words) })
}

// TestFill starts a container, and has all files of its image on the machine without
// anybody reading them, also when a daemon dies on the way: then the peers may go.
func TestFill(t *testing.T) {
	t.Parallel() // most of the time it waits
	layout := labtest.Image(t, "small")
	w := newWorld(t, "fill", 2*time.Second)
	filled := w.consumer("filled", lab.DaemonOptions{Fill: "on", Timeout: 2 * time.Second})
	w.must(filled.consume.SetRate(t.Context(), 30))
	ref := w.convert(w.push(layout))
	filled.pull(ref, "ipcs")
	c := filled.start("c", ref)
	filled.until("files come", func(s *lab.Status) bool { return s.Fetch.Bytes > 10<<20 })
	filled.daemon.Kill()
	w.must(filled.daemon.Start(t.Context()))
	w.must(filled.consume.SetRate(t.Context(), 1000))
	status := filled.until("all files come", func(s *lab.Status) bool {
		return len(s.Chains) == 1 && s.Chains[0].Files > 0 && s.Chains[0].LocalFiles == s.Chains[0].Files
	})
	if status.Lazy.Reads > 100 {
		t.Errorf("FUSE: %d reads", status.Lazy.Reads)
	}
	w.must(w.source.Stop())
	if _, err := c.exec(t.Context(), "all", "sh", "-c", hashAll); err != nil {
		t.Errorf("read all files without a peer: %v", err)
	}
}

// TestFetch has all of an image fetched before there is a container, which then needs no peer. Stopped
// on the way, the next command goes on.
func TestFetch(t *testing.T) {
	t.Parallel() // most of the time it waits
	layout := labtest.Image(t, "small")
	w := newWorld(t, "fetch", 2*time.Second)
	c := w.consumer("fetched", lab.DaemonOptions{Timeout: 2 * time.Second})
	w.must(c.consume.SetRate(t.Context(), 30))
	ref := w.convert(w.push(layout))
	if err := c.daemon.Fetch(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "pull it first") {
		t.Errorf("an image that was not pulled: %v", err)
	}
	c.pull(ref, "ipcs")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := c.daemon.Fetch(ctx, ref); err == nil {
		t.Error("all was fetched in three seconds, over 30 Mbit/s")
	}
	c.until("nothing is fetched any more", func(s *lab.Status) bool { return s.Fetch.InFlight == 0 && s.Fetch.Bytes > 0 })
	w.must(c.consume.SetRate(t.Context(), 1000))
	w.must(c.daemon.Fetch(t.Context(), ref))
	w.must(w.source.Stop())
	run := c.start("c", ref)
	if _, err := run.exec(t.Context(), "all", "sh", "-c", hashAll); err != nil {
		t.Errorf("read all files without a peer: %v", err)
	}
	if err := c.daemon.Fetch(t.Context(), ref); err != nil {
		t.Errorf("fetch what is here, without a peer: %v", err)
	}
}
