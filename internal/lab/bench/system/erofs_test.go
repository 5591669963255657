package system_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// TestErofsMissing reads the versions that mkfs.erofs says it is. Old ones say it when
// they complain that they know no --version.
func TestErofsMissing(t *testing.T) {
	erofs, err := system.Named("erofs")
	if err != nil {
		t.Fatal(err)
	}
	for output, want := range map[string]string{
		"mkfs.erofs 1.5":                 "mkfs.erofs 1.5 on PATH",
		"mkfs.erofs (erofs-utils) 1.8.1": "mkfs.erofs 1.8.1 on PATH",
		"mkfs.erofs (erofs-utils) 1.8.6\navailable compressors: lz4, zstd": "",
		"mkfs.erofs (erofs-utils) 1.10":                                    "",
		"":                                                                 "mkfs.erofs --version says",
	} {
		program := filepath.Join(t.TempDir(), "mkfs.erofs")
		if err := os.WriteFile(program, []byte("#!/bin/sh\ncat <<'EOF'\n"+output+"\nEOF\nexit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		got := erofs.Missing(t.Context(), func(string) (string, error) { return program, nil })
		if !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%q: %q, want %q", output, got, want)
		}
	}
	none := func(string) (string, error) { return "", errors.New("not there") }
	if got := erofs.Missing(t.Context(), none); !strings.Contains(got, "no mkfs.erofs") {
		t.Errorf("without mkfs.erofs: %q", got)
	}
}
