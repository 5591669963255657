package compare

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// seeds are what parseScan reads: scans of real layers, without the sum that is behind them.
func seeds(t testing.TB) (list [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/scans/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, data)
	}
	return list
}

// TestSeeds says that the fuzz target begins with scans.
func TestSeeds(t *testing.T) {
	list := seeds(t)
	if len(list) == 0 {
		t.Fatal("there are no seeds")
	}
	for _, data := range list {
		if _, err := decodeScan(data); err != nil {
			t.Error(err)
		}
	}
}

// FuzzScan reads scans: what is taken is added up without a fault, and is written as it was.
func FuzzScan(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data[:len(data)-sumSize])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseScan(data)
		if err != nil {
			if !errors.Is(err, errCached) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		tally := newTally(1)
		if _, err := tally.add(s, map[int]int{0: 1}); err != nil {
			t.Errorf("it is taken, and cannot be added: %v", err)
		}
		if !bytes.HasSuffix(data, s.chunks) {
			t.Error("its end is not the chunks")
		}
	})
}
