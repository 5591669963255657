package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// files makes the image of a recipe on top of a small one, and returns the number of its
// layers and the content of its files.
func files(t *testing.T, r recipe) (layers int, content map[string]string) {
	t.Helper()
	dir := t.TempDir()
	r.from = "below"
	layout, err := cookbook{"below": one("1", "", "a"), "x": r}.ensure(t.Context(), dir, "x", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(layout)
	if err != nil {
		t.Fatal(err)
	}
	content = map[string]string{}
	for _, l := range s.Manifest.Layers {
		if err := s.read(l, func(r io.Reader) error { return readFiles(r, content) }); err != nil {
			t.Fatal(err)
		}
	}
	return len(s.Manifest.Layers), content
}

func readFiles(r io.Reader, content map[string]string) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if _, ok := content[h.Name]; ok {
			return fmt.Errorf("%s is there twice", h.Name)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		content[h.Name] = string(text)
	}
}

// TestSpread finds the same files in however many layers.
func TestSpread(t *testing.T) {
	const wanted = 250
	var first map[string]string
	for _, n := range []int{3, 10} {
		layers, content := files(t, recipe{version: "1", make: spread{wanted, n}.make})
		if layers != n || len(content) != wanted+1 { // and that of the image below
			t.Errorf("%d layers with %d files, want %d with %d", layers, len(content), n, wanted+1)
		}
		if first == nil {
			first = content
		}
		for name, text := range content {
			if first[name] != text {
				t.Fatalf("%s differs", name)
			}
		}
	}
}

// TestCrowd finds as many files as asked for, all different.
func TestCrowd(t *testing.T) {
	const n = 3000
	layers, content := files(t, recipe{version: "1", make: crowd(n).make})
	different := map[string]bool{}
	for name, text := range content {
		different[text] = true
		if len(text) > 1<<10 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
	}
	if layers != 2 || len(different) != n+1 {
		t.Errorf("%d layers with %d files, want 2 with %d", layers, len(different), n+1)
	}
}

// TestTrim leaves out what is named, all below it, and hard links to it.
func TestTrim(t *testing.T) {
	full := recipe{version: "1", make: func(ctx context.Context, j job) error {
		return j.write(ctx, Image{Layers: []Layer{{Tar: Tar(func(t *Tarball) {
			for _, name := range []string{"usr/lib/x/perl/a/b", "usr/lib/perl", "usr/lib/x/perls", "kept"} {
				t.File(name, 0o640, name, Owner(1, 2), Xattr("user.note", "a"))
			}
			t.Link("lost", "usr/lib/x/perl/a/b")
			t.Link("linked", "kept")
		})}}})
	}}
	c := cookbook{"full": full, "small": {version: "1", from: "full", make: trim{"usr/lib/*/perl"}.make}}
	var got []string
	for _, name := range []string{"full", "small"} {
		layout, err := c.ensure(t.Context(), t.TempDir(), name, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(layout)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Tars(func(r io.Reader) error {
			tr := tar.NewReader(r)
			h, err := tr.Next()
			for ; err == nil; h, err = tr.Next() {
				got = append(got, fmt.Sprint(h.Name, h.Linkname, h.Mode, h.Uid, h.PAXRecords))
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 6+4 {
		t.Fatalf("%q", got)
	}
	want := slices.Concat(got[:6], got[1:4], got[5:6])
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestChoose finds about as much as asked for, the same each time, and no file that
// is most of it.
func TestChoose(t *testing.T) {
	root := t.TempDir()
	for i := range 300 {
		dir := filepath.Join(root, fmt.Sprint(i%10))
		if err := errors.Join(os.MkdirAll(dir, 0o755),
			os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(content(i, 1<<10, 8<<10)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	large := filepath.Join(root, "large")
	if err := os.WriteFile(large, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	const size = 200_000
	paths, err := choose(root, size)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, p := range paths {
		info, err := os.Stat(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size() // about half of it is left when compressed
	}
	if bytes < size || bytes > 3*size || slices.Contains(paths, "large") {
		t.Errorf("%d files of %d bytes, with the large one: %v", len(paths), bytes, slices.Contains(paths, "large"))
	}
	again, err := choose(root, size)
	if err != nil || !slices.Equal(again, paths) {
		t.Errorf("another choice: %v", err)
	}
	if _, err := choose(root, 10<<20); err == nil {
		t.Error("more was chosen than is there")
	}
}
