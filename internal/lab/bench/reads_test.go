package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestReads uses a tree in every way, and finds that what is not there is an error.
func TestReads(t *testing.T) {
	root := t.TempDir()
	for name, size := range map[string]int{"small/00/a": 10, "small/01/b": 5000, "large/file": 1<<20 + 1} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte{1}, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	paths, err := list(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".", "large", "large/file", "small", "small/00", "small/00/a", "small/01", "small/01/b"}
	if !slices.Equal(paths, want) {
		t.Errorf("list: %q, want %q", paths, want)
	}
	for _, r := range reads() {
		if err := r.do(t.Context(), tree{root, paths}); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		if err := r.do(t.Context(), tree{filepath.Join(root, "none"), paths}); err == nil {
			t.Errorf("%s: no error for a tree that is not there", r.name)
		}
	}
}

// TestOutputPeak finds the buffer of a program that copies with a large one.
func TestOutputPeak(t *testing.T) {
	peak, err := outputPeak(exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=30"))
	if err != nil {
		t.Fatal(err)
	}
	if peak < 64<<20 || peak > 128<<20 {
		t.Errorf("dd with a buffer of 64 MiB held %d MiB", peak>>20)
	}
	if _, err := outputPeak(exec.CommandContext(t.Context(), "dd", "if=/nothing")); err == nil {
		t.Error("no error from a command that fails")
	}
}
