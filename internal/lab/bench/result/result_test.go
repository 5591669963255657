package result_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

func TestSaveAndLoad(t *testing.T) {
	ratio := 0.5
	want := &result.Report{
		Schema: result.Schema, Scenario: "cold-start", Base: "overlayfs", Command: "make bench ONLY=cold-start",
		Commit: "abc", Started: time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC), Seconds: 12,
		Machine: result.Machine{CPU: "a CPU", Cores: 2, Memory: 1 << 34}, Versions: map[string]string{"go": "go1"},
		Figures: []result.Figure{{
			Case: "c", Link: "200 Mbit/s", System: "ipcs", Metric: "ready", Unit: "s", Better: result.Lower,
			Runs: []float64{1, 2.5, 1e-9}, Median: 1, Spread: 0.1, Ratios: []float64{0.5}, Ratio: &ratio,
		}},
		Missing: []result.Missing{{System: "x", Reason: "it says\n[\n 1,\n  2\n] and [ 3 ]"}},
	}
	dir := filepath.Join(t.TempDir(), "new")
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "cold-start.json"))
	if err != nil {
		t.Fatal(err)
	}
	if list := `"runs": [1, 2.5, 1e-9],`; !strings.Contains(string(text), list) {
		t.Errorf("no line %s in\n%s", list, text)
	}
	for _, path := range []string{dir, filepath.Join(dir, "cold-start.json")} {
		got, err := result.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s: read %+v, want %+v", path, got[0], want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"another schema": {`{"schema": 2, "scenario": "s"}`, "unknown version"},
		"no schema":      {`{}`, "unknown version"},
		"no JSON":        {`{"schema": 1,`, "unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.json")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := result.Load(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error about %s that has %q", err, path, test.want)
			}
			if schema := errors.Is(err, result.ErrSchema); schema != (name != "no JSON") {
				t.Errorf("%v: is ErrSchema: %v", err, schema)
			}
		})
	}
	if _, err := result.Load(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct {
		value      float64
		unit, want string
	}{
		{0, "s", "0 s"}, {1.163, "s", "1.16 s"}, {27.74, "s", "27.7 s"}, {132.4, "s", "132 s"}, {0.0305, "s", "30.5 ms"},
		{0.9996, "s", "1.00 s"}, {2.5e-4, "s", "250 µs"},
		{485, "B", "485 B"}, {19_060_000, "B", "19.1 MB"}, {3.573e9, "B", "3.57 GB"}, {999_960, "B", "1.00 MB"}, {117e6, "B/s", "117 MB/s"},
		{52, "files", "52 files"}, {0.123, "", "0.12"}, {97.26, "%", "97.3 %"},
	} {
		if got := result.Format(test.value, test.unit); got != test.want {
			t.Errorf("Format(%v, %q) = %q, want %q", test.value, test.unit, got, test.want)
		}
	}
	for ratio, want := range map[float64]string{0.178: "×0.18", 1: "×1.00", 12.34: "×12.3", 0.0213: "×0.021"} {
		if got := result.FormatRatio(ratio); got != want {
			t.Errorf("FormatRatio(%v) = %q, want %q", ratio, got, want)
		}
	}
	for spread, want := range map[float64]string{0: "±<1 %", 0.06: "±3 %"} {
		if got := result.FormatSpread(spread); got != want {
			t.Errorf("FormatSpread(%v) = %q, want %q", spread, got, want)
		}
	}
}
