package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench/report"
)

// The committed document is what the committed results, notes and scenarios make: none
// of them changes without it.
func TestDocument(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..")
	f := folders{
		results: filepath.Join(root, "bench", "results"), notes: filepath.Join(root, "bench", "notes"), out: filepath.Join(root, "docs"),
	}
	committed, err := report.Load(f.out)
	if err != nil {
		t.Fatal(err)
	}
	made := report.Files{} // of no results no document
	if _, err := os.Stat(f.results); err == nil {
		if made, err = document(f); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := made.Diff(committed); len(diff) > 0 {
		t.Errorf("docs are not what \"bench report\" makes: %s", strings.Join(diff, ", "))
	}
}
