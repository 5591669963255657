package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestDiskUsage counts hard links and folders that are named twice once, and holes not
// at all.
func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	empty, err := diskUsage(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, bytes.Repeat([]byte{1}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	hole := filepath.Join(dir, "hole")
	if err := os.WriteFile(hole, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(hole, size); err != nil {
		t.Fatal(err)
	}
	got, err := diskUsage(t.Context(), dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	// File systems may need some blocks to note where the others are.
	if got -= empty; got < size || got > size+size/4 {
		t.Errorf("a file of %d bytes, linked twice, beside a hole: %d bytes more", size, got)
	}
	if _, err := diskUsage(t.Context(), filepath.Join(dir, "none")); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

// TestReadWhole reads what is a file and nothing else.
func TestReadWhole(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"a": 0, "b": 10, "sub/c": 3 << 20} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	for _, readers := range []int{1, 4} {
		got, err := readWhole(t.Context(), dir, readers)
		if want := (whole{Files: 3, Bytes: 10 + 3<<20}); err != nil || got != want {
			t.Errorf("%d readers: %+v, %v; want %+v", readers, got, err, want)
		}
	}
	if _, err := readWhole(t.Context(), filepath.Join(dir, "none"), 2); err == nil {
		t.Error("no error for a folder that is not there")
	}
}
