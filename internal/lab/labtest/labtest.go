// Package labtest opens labs for tests: it finds the project's folder, gets the tools
// and images that are missing, and closes the lab with the test.
//
// Without root rights the tests are skipped, loudly; with IPCS_REQUIRE_ALL=1, as in CI,
// they fail.
package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// Project returns the folder of the project's go.mod.
func Project(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == "/" {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Cache returns the project's folder for what is kept from run to run.
func Cache(t testing.TB) string { return filepath.Join(Project(t), ".cache") }

// setup is held while something may be installed, which tests that run beside each other shall
// not do at once.
var setup sync.Mutex

// Options are those of a lab in the project's cache, with the tools it needs; see
// lab.Options for the rate.
func Options(t testing.TB, name string, rate int) lab.Options {
	t.Helper()
	hosttest.Root(t)
	Tools(t, tools.Lab...)
	cache := Cache(t)
	return lab.Options{
		Name: name, Rate: rate, Log: t.Logf,
		Dir: filepath.Join(cache, "run"), Tools: filepath.Join(cache, "bin"), Bin: filepath.Join(Project(t), "bin"),
	}
}

// Open opens a lab of that name, and closes it with the test.
func Open(t testing.TB, name string, rate int) *lab.Lab {
	t.Helper()
	opts := Options(t, name, rate)
	setup.Lock()
	l, err := lab.Open(t.Context(), opts)
	setup.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// Tools makes further programs available to the lab.
func Tools(t testing.TB, names ...string) {
	t.Helper()
	setup.Lock()
	defer setup.Unlock()
	if err := tools.Ensure(t.Context(), filepath.Join(Cache(t), "bin"), t.Logf, names...); err != nil {
		t.Fatal(err)
	}
}

// Nightly skips a test that takes longer than everything else together, but for nightly runs.
func Nightly(t testing.TB) {
	t.Helper()
	if os.Getenv("IPCS_NIGHTLY") != "1" {
		t.Skip("NOT TESTED here: this takes long, and `make nightly` runs it")
	}
}

// Machine adds a machine to the lab.
func Machine(t testing.TB, l *lab.Lab, name string) *lab.Machine {
	t.Helper()
	m, err := l.Machine(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Image returns the layout of one of the images that package images keeps.
func Image(t testing.TB, name string) string {
	t.Helper()
	hosttest.Root(t)
	dir, err := images.Ensure(t.Context(), filepath.Join(Cache(t), "images"), name, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// built is what became of the one build of a test's process: to find that nothing has changed
// takes the go command two seconds.
var built struct {
	sync.Once
	err error
}

// Build builds the programs of ipcs, as the lab runs them, and the one that holds a pod together.
func Build(t testing.TB) {
	t.Helper()
	project := Project(t)
	built.Do(func() {
		cmd := exec.Command("go", "build", "-o", filepath.Join(project, "bin")+"/", "./cmd/...", "./internal/lab/cmd/pause")
		cmd.Dir, cmd.Env = project, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build ipcs: %v", built.err)
	}
}
