package e2e

import (
	"fmt"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// TestPosix runs go-fuse's tests for file systems on containers' roots: on an ipcs image of
// which nothing was fetched, on one of which everything was, and on overlayfs. What passes
// on overlayfs has to pass on ipcs.
//
// In the folders that the tests work in, the image's layers have files of the names that
// they use; below "emptied", the next layer removes them.
func TestPosix(t *testing.T) {
	labtest.Tools(t, tools.Posix...)
	plain := outcomes(t, t.TempDir())
	w := newWorldWith(t, "posix", options{loopback: true})
	ordinary, converted := w.posixImages(plain)
	for _, run := range []struct{ dir, state string }{{"emptied", unfetchedState}, {"full", unfetchedState}, {"full", "fetched"}} {
		want := w.posix(ordinary, "overlayfs", run.dir)
		before := w.fetched()
		if run.state != unfetchedState {
			w.tree(converted, "ipcs") // reads all
			before = w.fetched()
		}
		got := w.posix(converted, "ipcs", run.dir)
		if after := w.fetched(); run.dir == "full" && (after > before) != (run.state == unfetchedState) {
			t.Errorf("%v: %d files were here before, %d after", run, before, after)
		}
		passed := 0
		for name, outcome := range want {
			if got[name] == "PASS" {
				passed++
			}
			if got[name] != outcome && outcome == "PASS" {
				t.Errorf("%v: %s: %q, on overlayfs %q", run, name, got[name], outcome)
			}
		}
		t.Logf("%v: %d of %d passed", run, passed, len(want))
	}
}

// unfetchedState is that of an image of which nothing was read.
const unfetchedState = "unfetched"

// posixImages pulls the image that the tests work in, an ordinary one on overlayfs, and
// converted on ipcs.
func (w *world) posixImages(tests map[string]string) (ordinary, converted string) {
	w.t.Helper()
	layout := filepath.Join(w.t.TempDir(), "posix")
	_, err := images.Write(w.t.Context(), layout, images.Image{Layers: []images.Layer{
		{Tar: images.Tar(func(t *images.Tarball) { posixFiles(t, tests) })},
		{Tar: images.Tar(func(t *images.Tarball) { posixEmptied(t, tests) })},
	}})
	w.must(err)
	ordinary = w.push(layout)
	converted = w.convert(ordinary)
	w.pull(ordinary, "overlayfs")
	w.pull(converted, "ipcs")
	return ordinary, converted
}

// posixNames are those that the tests give to files.
func posixNames() []string {
	names := []string{"file", "link", "file.bin", "dir", "ttt", "tmpfile", "test", "target", "src", "dst", "foobar", "file.txt"}
	for i := range 110 {
		names = append(names, fmt.Sprintf("file%d", i), fmt.Sprintf("file%036x", i))
	}
	return names
}

func posixFiles(tar *images.Tarball, tests map[string]string) {
	for _, parent := range []string{"emptied", "full"} {
		tar.Dir(parent, 0o755)
		for _, test := range slices.Sorted(maps.Keys(tests)) {
			tar.Dir(path.Join(parent, test), 0o755)
			for _, name := range posixNames() {
				tar.File(path.Join(parent, test, name), 0o644, fmt.Sprintln(parent, test, name))
			}
		}
	}
}

// posixEmptied removes the files below one folder: one half by name, the other with its folder.
func posixEmptied(tar *images.Tarball, tests map[string]string) {
	for i, test := range slices.Sorted(maps.Keys(tests)) {
		dir := path.Join("emptied", test)
		if i%2 == 0 {
			tar.Dir(dir, 0o755)
			tar.Opaque(dir)
			continue
		}
		for _, name := range posixNames() {
			tar.Whiteout(path.Join(dir, name))
		}
	}
}

// posix runs the tests in a folder of a container's root.
func (w *world) posix(ref, snapshotter, dir string) map[string]string {
	w.t.Helper()
	v, err := w.containerd.Writable(w.t.Context(), ref, snapshotter)
	w.must(err)
	got := outcomes(w.t, filepath.Join(v.Root, dir))
	w.must(v.Close(w.t.Context()))
	return got
}

// fetched is how many files were fetched.
func (w *world) fetched() int64 {
	w.t.Helper()
	status, err := w.daemon.Status(w.t.Context())
	w.must(err)
	return status.Fetch.Files
}

var outcome = regexp.MustCompile(`(?m)^    --- (PASS|FAIL|SKIP): TestAll/(\S+)`)

// outcomes runs the tests in a folder, and returns how each ended.
func outcomes(t testing.TB, dir string) map[string]string {
	t.Helper()
	program := filepath.Join(labtest.Cache(t), "bin", tools.Posix[0])
	out, err := exec.CommandContext(t.Context(), program, "-posixdir", dir, "-test.v").CombinedOutput()
	found := map[string]string{}
	for _, m := range outcome.FindAllStringSubmatch(string(out), -1) {
		found[m[2]] = m[1]
	}
	if len(found) < 20 {
		t.Fatalf("only %d tests ran: %v\n%s", len(found), err, out)
	}
	return found
}
