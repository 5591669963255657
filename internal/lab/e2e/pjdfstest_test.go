package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// TestPjdfstest runs pjdfstest, whose checkout PJDFSTEST names, on a container's root on
// overlayfs and on ipcs: what overlayfs passes has to pass on ipcs. There is no package of
// it to get it from.
func TestPjdfstest(t *testing.T) {
	labtest.Nightly(t)
	checkout := os.Getenv("PJDFSTEST")
	if checkout == "" {
		t.Skip("NOT TESTED: PJDFSTEST names no checkout of github.com/pjd/pjdfstest, which is in no package")
	}
	suite := buildPjdfstest(t, checkout)
	w := newWorldWith(t, "pjdfs", options{loopback: true})
	ordinary, converted := w.posixImages(nil)
	want := w.pjdfstest(suite, ordinary, "overlayfs")
	got := w.pjdfstest(suite, converted, "ipcs")
	if len(want) < 5000 || len(got) != len(want) {
		t.Errorf("%d tests ran on overlayfs, %d on ipcs", len(want), len(got))
	}
	passed, shared := 0, 0
	for name, failure := range want {
		switch other, ran := got[name]; {
		case !ran:
			t.Errorf("%s did not run on ipcs", name)
		case other == "":
			passed++
		case failure != "":
			shared++
		default:
			t.Errorf("%s passes on overlayfs, and not on ipcs: %s", name, other)
		}
	}
	t.Logf("pjdfstest: %d of %d passed, and %d fail on overlayfs, too", passed, len(want), shared)
}

// buildPjdfstest builds the program of the suite beside a copy of it, and returns the copy.
func buildPjdfstest(t *testing.T, checkout string) (dir string) {
	t.Helper()
	if err := tools.Packages(t.Context(), map[string]string{
		"autoreconf": "autoconf automake", "make": "make", "gcc": "gcc libc6-dev", "openssl": "openssl",
	}); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "pjdfstest")
	build := exec.CommandContext(t.Context(), "sh", "-c",
		`cp -r "$1" "$2" && cd "$2" && autoreconf -ifs && ./configure && make pjdfstest`, "sh", checkout, dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pjdfstest: %v\n%s", err, out)
	}
	return dir
}

// pjdfstest runs the suite on an image's root, and returns how each test failed, or "".
func (w *world) pjdfstest(suite, ref, snapshotter string) map[string]string {
	w.t.Helper()
	v, err := w.containerd.Writable(w.t.Context(), ref, snapshotter)
	w.must(err)
	files, err := filepath.Glob(filepath.Join(suite, "tests", "*", "*.t"))
	w.must(err)
	outcomes := make([]map[string]string, len(files))
	group, ctx := errgroup.WithContext(w.t.Context())
	group.SetLimit(4) // they sleep a lot
	for i, file := range files {
		dir := filepath.Join(v.Root, "full", fmt.Sprint("test-", i))
		w.must(os.Mkdir(dir, 0o755))
		group.Go(func() (err error) {
			outcomes[i], err = tapOf(ctx, dir, file)
			return err
		})
	}
	w.must(group.Wait())
	w.must(v.Close(w.t.Context()))
	all := map[string]string{}
	for i, file := range files {
		for number, failure := range outcomes[i] {
			all[strings.TrimPrefix(file, suite+"/tests/")+" "+number] = failure
		}
	}
	return all
}

var tapLine = regexp.MustCompile(`(?m)^(ok|not ok) (\d+)(.*)`)

// tapOf runs one file of the suite in a directory.
func tapOf(ctx context.Context, dir, file string) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "sh", file)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	outcomes := map[string]string{}
	for _, m := range tapLine.FindAllStringSubmatch(string(out), -1) {
		failure := ""
		if m[1] != "ok" && !slices.Contains(strings.Fields(m[3]), "TODO") {
			failure = "not ok" + m[3]
		}
		outcomes[m[2]] = failure
	}
	return outcomes, nil
}
