package images

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// one is a recipe of one layer with a file of that content, on top of another image.
func one(version, from, content string) recipe {
	return recipe{version: version, from: from, make: func(ctx context.Context, j job) error {
		if err := os.WriteFile(filepath.Join(j.work, "scratch"), nil, 0o600); err != nil {
			return err
		}
		return j.write(ctx, Image{From: j.from, Layers: []Layer{{Tar: Tar(func(t *Tarball) { t.File("f", 0o644, content) })}}})
	}}
}

// ensured makes the image, and returns the digest of its manifest.
func ensured(t *testing.T, c cookbook, dir, name string) string {
	t.Helper()
	layout, err := c.ensure(t.Context(), dir, name, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(layout)
	if err != nil {
		t.Fatal(err)
	}
	return s.Target.Digest.String()
}

// TestRecipes finds that the images which others stand on are there, and that none
// stands on itself; that all have a version; and that all can be had with zstd.
func TestRecipes(t *testing.T) {
	for name, r := range recipes {
		if r.version == "" || r.make == nil {
			t.Errorf("%s: version %q, make %v", name, r.version, r.make != nil)
		}
		below, depth := r.from, 0
		for ; below != "" && depth < len(recipes); depth++ {
			next, err := recipes.find(below)
			if err != nil {
				t.Errorf("%s stands on %v", name, err)
			}
			below = next.from
		}
		if below != "" {
			t.Errorf("%s stands on itself", name)
		}
		if z, err := recipes.find(name + zstdSuffix); err != nil || z.from != name {
			t.Errorf("%s%s is made from %q: %v", name, zstdSuffix, z.from, err)
		}
	}
	for _, unknown := range []string{"unheard-of", "base" + zstdSuffix + zstdSuffix, zstdSuffix, ""} {
		_, err := Ensure(t.Context(), t.TempDir(), unknown, t.Logf)
		if err == nil {
			t.Fatalf("an image %q was made", unknown)
		}
		for name := range recipes {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error for %q does not name %s: %v", unknown, name, err)
			}
		}
	}
}

// TestEnsureRemakes finds that an image is kept while its recipe and the image below
// stay as they are, and made again when one of them changes.
func TestEnsureRemakes(t *testing.T) {
	dir := t.TempDir()
	c := cookbook{"below": one("1", "", "a"), "above": one("1", "below", "b")}
	first := ensured(t, c, dir, "above+zstd")
	kept := cookbook{"below": one("1", "", "not made"), "above": one("1", "below", "nor this")}
	if got := ensured(t, kept, dir, "above+zstd"); got != first {
		t.Error("an image was made again that nothing asked for")
	}
	c["below"] = one("2", "", "another")
	second := ensured(t, c, dir, "above+zstd")
	if second == first {
		t.Error("the image was kept when the one below changed")
	}
	c["above"] = one("2", "below", "another")
	if ensured(t, c, dir, "above+zstd") == second {
		t.Error("the image was kept when its recipe changed")
	}
}

// TestEnsureFails finds that a recipe that fails, or is interrupted, leaves nothing
// half made, and that what a killed one left goes.
func TestEnsureFails(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("broken")
	fails := func(fail func() error) recipe {
		return recipe{version: "1", make: func(ctx context.Context, j job) error {
			tar := func(w io.Writer) error {
				if err := fail(); err != nil {
					return err
				}
				_, err := w.Write(make([]byte, 1024))
				return err
			}
			return errors.Join(os.Mkdir(filepath.Join(j.work, "half"), 0o700), j.write(ctx, Image{Layers: []Layer{{Tar: tar}}}))
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for want, r := range map[error]recipe{
		broken:           fails(func() error { return broken }),
		context.Canceled: fails(func() error { cancel(); return nil }),
	} {
		if _, err := (cookbook{"x": r}).ensure(ctx, dir, "x", t.Logf); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(left) != 1 || filepath.Base(left[0]) != "x.lock" {
			t.Errorf("left behind: %q, %v", left, err)
		}
	}
	for _, killed := range []string{"x.work/1", "x.part/blobs"} {
		if err := os.MkdirAll(filepath.Join(dir, killed), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ensured(t, cookbook{"x": one("1", "", "a")}, dir, "x")
	for _, gone := range []string{"x.work", "x.part"} {
		if _, err := os.Stat(filepath.Join(dir, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
}
