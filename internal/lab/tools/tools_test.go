package tools

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestEnsureKeepsWhatIsCurrent finds that a program at its pinned version is not built
// again, and that one of another version does not count.
func TestEnsureKeepsWhatIsCurrent(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var registry build
	for _, b := range builds {
		for _, name := range b.programs() {
			if name == "registry" {
				registry = b
			}
		}
	}
	write("registry", "program")
	write("registry.version", registry.stamp()+"\n")
	if err := Ensure(t.Context(), dir, t.Logf, "registry"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "registry")); err != nil || string(text) != "program" {
		t.Errorf("the program was replaced: %q, %v", text, err)
	}
	write("registry.version", registry.module+"@v0.0.1\n")
	if current(dir, "registry", registry.stamp()) {
		t.Error("another version counts as current")
	}
	if err := Ensure(t.Context(), dir, t.Logf, "unheard-of"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown tool: %v", err)
	}
}
