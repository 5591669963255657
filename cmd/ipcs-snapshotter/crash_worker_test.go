package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/mediatype"
)

// crashSnapshot is what a worker knows of a snapshot.
type crashSnapshot struct {
	kind   snapshots.Kind
	parent string // "" for the lowest layer
	layer  bool
}

// crashName names a snapshot as workers do: one of a layer by its chain.
func crashName(info snapshots.Info) string {
	if chain := info.Labels[snapshots.LabelSnapshotRef]; chain != "" {
		return chain
	}
	return info.Name
}

// crashWorker pulls images, runs, commits and removes.
type crashWorker struct {
	t      testing.TB
	daemon *crashDaemon
	name   string
	dir    string
	random *rand.Rand
	images []*crashImage
	serial int
	steps  int
	counts map[string]int

	ctx   context.Context
	sn    snapshots.Snapshotter
	diffs diff.Comparer
	close func()

	have   map[string]crashSnapshot
	pins   map[string]bool // layer roots that were committed
	doubt  map[string]crashSnapshot
	failed error // what ended the work
	inRead bool  // it was a read
}

func (w *crashWorker) connect(sn snapshots.Snapshotter, conn *grpc.ClientConn) {
	w.ctx = namespaces.WithNamespace(w.t.Context(), "crash")
	w.sn = sn
	w.diffs = diffproxy.NewDiffApplier(diffapi.NewDiffClient(conn)).(diff.Comparer)
}

// work does one step after the other until it is told to stop, or one fails.
func (w *crashWorker) work(stop <-chan struct{}) {
	w.failed, w.inRead, w.doubt = nil, false, nil
	for w.failed == nil {
		select {
		case <-stop:
			return
		default:
		}
		what := w.step()
		if w.failed == nil && what != "" {
			w.steps++
			w.counts[what]++
		}
	}
}

// step does something that can be done now, and says what.
func (w *crashWorker) step() string {
	im := w.images[w.random.IntN(len(w.images))]
	here := 0
	for _, l := range im.layers {
		if _, ok := w.have[l.chain]; ok {
			here++
		}
	}
	top := im.layers[len(im.layers)-1].chain
	active := w.named(func(_ string, s crashSnapshot) bool { return s.kind == snapshots.KindActive && s.parent == top })
	switch n := w.random.IntN(10); {
	case here < len(im.layers) && n < 9:
		w.pull(im, here)
		return "layers pulled"
	case n == 9:
		w.failed = w.sn.(snapshots.Cleaner).Cleanup(w.ctx)
		return "collections"
	case n >= 6:
		return w.remove(im)
	case active == "":
		w.prepare(top)
		return "containers"
	case n < 3:
		w.run(im, active)
		return "reads"
	case n == 3:
		w.commitLayer(active)
		return "layers committed"
	default:
		w.commit(active)
		return "commits"
	}
}

// named returns a snapshot that is as wanted.
func (w *crashWorker) named(is func(name string, s crashSnapshot) bool) string {
	for _, name := range slices.Sorted(maps.Keys(w.have)) {
		if is(name, w.have[name]) {
			return name
		}
	}
	return ""
}

// walk calls fn with each snapshot. That there was never one is no error.
func (w *crashWorker) walk(fn snapshots.WalkFunc, filters ...string) error {
	err := w.sn.Walk(w.ctx, fn, filters...)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// change does something that leads from what there is to something else, or, if it fails, to
// either.
func (w *crashWorker) change(do func() error, edit func(have map[string]crashSnapshot)) {
	next := maps.Clone(w.have)
	edit(next)
	if w.failed = do(); w.failed != nil {
		w.doubt = next
		return
	}
	w.have = next
}

func (w *crashWorker) key(what string) string {
	w.serial++
	return fmt.Sprintf("%s-%s-%d", w.name, what, w.serial)
}

func (w *crashWorker) pull(im *crashImage, n int) {
	l, parent := im.layers[n], ""
	if n > 0 {
		parent = im.layers[n-1].chain
	}
	w.change(func() error {
		_, err := w.sn.Prepare(w.ctx, w.key("extract"), w.real(parent), snapshots.WithLabels(l.labels))
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		return fmt.Errorf("prepare layer %s: %w", l.chain, cmpErr(err))
	}, func(have map[string]crashSnapshot) {
		have[l.chain] = crashSnapshot{kind: snapshots.KindCommitted, parent: parent, layer: true}
	})
}

// cmpErr is an error also where there was none.
func cmpErr(err error) error {
	if err == nil {
		return errors.New("mounts were returned for an ipcs layer")
	}
	return err
}

// real returns the snapshotter's own name of a snapshot.
func (w *crashWorker) real(name string) (found string) {
	if s := w.have[name]; !s.layer {
		return name
	}
	err := w.walk(func(_ context.Context, info snapshots.Info) error {
		if crashName(info) == name {
			found = info.Name
		}
		return nil
	}, fmt.Sprintf("labels.%q==%s", snapshots.LabelSnapshotRef, name))
	if err != nil {
		w.failed = err
	}
	return found
}

func (w *crashWorker) prepare(parent string) {
	key := w.key("container")
	w.change(func() error {
		_, err := w.sn.Prepare(w.ctx, key, w.real(parent))
		return err
	}, func(have map[string]crashSnapshot) {
		have[key] = crashSnapshot{kind: snapshots.KindActive, parent: parent}
	})
}

// run reads all files in a container, and writes one.
func (w *crashWorker) run(im *crashImage, key string) {
	mounts, err := w.sn.Mounts(w.ctx, key)
	if err == nil {
		err = mount.All(mounts, w.dir)
	}
	if err != nil {
		w.failed = err
		return
	}
	defer func() { w.failed = errors.Join(w.failed, unmount(w.dir)) }()
	// Another process reads: files that are open here would keep the next daemon from being
	// started, until there is one.
	read := exec.Command(os.Args[0], w.dir)
	read.Env = append(os.Environ(), asReader+"=1")
	out, err := read.CombinedOutput()
	if err != nil {
		w.failed, w.inRead = fmt.Errorf("%w: %s", err, out), true
		return
	}
	for name, want := range im.files {
		if line := fmt.Sprintf("%s %x\n", name, want); !strings.Contains(string(out), line) {
			w.t.Errorf("file %s of %s has other content", name, key)
		}
	}
	w.failed = os.WriteFile(filepath.Join(w.dir, w.key("new")), []byte(key), 0o644)
}

// readAll prints the hashes of the files in a folder.
func readAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Printf("%s %x\n", e.Name(), sha256.Sum256(data))
	}
	return nil
}

func (w *crashWorker) commit(key string) {
	name, s := w.key("committed"), w.have[key]
	w.change(func() error { return w.sn.Commit(w.ctx, name, key) }, func(have map[string]crashSnapshot) {
		delete(have, key)
		have[name] = crashSnapshot{kind: snapshots.KindCommitted, parent: s.parent}
	})
}

// commitLayer makes a layer of what a container has changed.
func (w *crashWorker) commitLayer(key string) {
	view := w.key("view")
	parent := w.have[key].parent
	var lower, upper []mount.Mount
	w.change(func() (err error) {
		lower, err = w.sn.View(w.ctx, view, w.real(parent))
		return err
	}, func(have map[string]crashSnapshot) {
		have[view] = crashSnapshot{kind: snapshots.KindView, parent: parent}
	})
	if w.failed != nil {
		return
	}
	upper, w.failed = w.sn.Mounts(w.ctx, key)
	if w.failed == nil {
		desc, err := w.diffs.Compare(w.ctx, lower, upper, diff.WithMediaType(mediatype.Layer))
		if w.failed = err; err == nil {
			w.pins[desc.Digest.String()] = true
		}
	}
	if w.failed == nil {
		w.removeOne(view)
	}
}

// remove removes something that nothing lies on.
func (w *crashWorker) remove(im *crashImage) string {
	name := w.named(func(name string, s crashSnapshot) bool {
		return w.named(func(_ string, child crashSnapshot) bool { return child.parent == name }) == "" &&
			(!s.layer || slices.ContainsFunc(im.layers, func(l crashLayer) bool { return l.chain == name }))
	})
	if name == "" {
		return ""
	}
	w.removeOne(name)
	return "removals"
}

func (w *crashWorker) removeOne(name string) {
	w.change(func() error { return w.sn.Remove(w.ctx, w.real(name)) }, func(have map[string]crashSnapshot) { delete(have, name) })
}

// settle finds out what became of what failed.
func (w *crashWorker) settle(kind string) {
	w.t.Helper()
	if w.failed != nil && (kind == "relay" || w.inRead && kind == "daemon") {
		w.t.Errorf("%s: although only the %s was killed: %v", w.name, kind, w.failed)
	}
	if w.doubt == nil {
		return
	}
	there := make(map[string]crashSnapshot)
	err := w.walk(func(_ context.Context, info snapshots.Info) error {
		there[crashName(info)] = crashSnapshot{}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	is := func(want map[string]crashSnapshot) bool {
		for _, m := range []map[string]crashSnapshot{w.have, w.doubt} {
			for name := range m {
				_, wanted := want[name]
				if _, found := there[name]; found != wanted {
					return false
				}
			}
		}
		return true
	}
	switch {
	case is(w.doubt):
		w.have = w.doubt
	case !is(w.have):
		w.t.Errorf("%s: neither before nor after %v: %v", w.name, w.failed, there)
	}
}

// removeAll removes all snapshots, the topmost first.
func (w *crashWorker) removeAll() {
	w.t.Helper()
	for len(w.have) > 0 {
		name := w.named(func(name string, _ crashSnapshot) bool {
			return w.named(func(_ string, child crashSnapshot) bool { return child.parent == name }) == ""
		})
		if w.removeOne(name); w.failed != nil {
			w.t.Fatal(w.failed)
		}
	}
}
