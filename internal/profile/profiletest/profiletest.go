// Package profiletest checks, for tests, that a run wrote its profiles.
package profiletest

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Check finds that dir has every profile, each a gzip file with something in it, as
// pprof's format is.
func Check(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"cpu", "allocs", "block", "mutex"} {
		data, err := os.ReadFile(filepath.Join(dir, name+".pprof"))
		if err != nil {
			t.Error(err)
			continue
		}
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Errorf("%s.pprof: %v", name, err)
			continue
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n == 0 {
			t.Errorf("%s.pprof has %d bytes, %v", name, n, err)
		}
	}
}
