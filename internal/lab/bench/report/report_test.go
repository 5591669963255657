package report_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab/bench/report"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

var update = flag.Bool("update", false, "write the golden files")

// sample is results that nobody measured, with all that a document can have.
func sample() report.Input {
	return report.Input{
		Sections: []report.Section{
			{
				Name: "cold-start", Title: "Cold start", About: "From nothing to `ready`.",
				Systems: []string{"overlayfs", "overlayfs-zstd", "erofs", "ipcs", "stargz"}, Main: []string{"ready", "received"},
				Cases: []report.Case{
					{Name: "debian", Image: "base", Command: "sh -c true"},
					{Name: "python", Image: "debian", Command: "python3 -c 'import json'"},
				},
			},
			{
				Name: "growth", Title: "Growth", About: "More of the same.", Systems: []string{"overlayfs", "ipcs"},
				Cases: []report.Case{{Name: "files-10k", Count: 10_000}, {Name: "files-100k", Count: 100_000}, {Name: "files-1m", Count: 1_000_000}},
			},
			{Name: "convert", Title: "Converting", About: "Against tar.", Cases: []report.Case{{Name: "debian", Image: "debian"}}},
			{Name: "later", Title: "Some other time", About: "Not measured."},
		},
		Systems: []report.System{{"overlayfs", "what people run"}, {"ipcs", "this project"}},
		Unbuilt: []report.Unbuilt{{"A thing to come", "it is not here yet"}},
		Reports: []*result.Report{sampleConvert(), sampleGrowth(), sampleStart()},
		Notes:   map[string]string{"growth": "Because it reads **all** of them.\n"},
		Results: "../bench/results",
	}
}

// newReport returns one without figures.
func newReport(scenario, base string) *result.Report {
	return &result.Report{
		Schema: result.Schema, Scenario: scenario, Base: base, Command: "make bench ONLY=" + scenario, Commit: "1234567",
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 754,
		Machine:  result.Machine{CPU: "A CPU", Cores: 2, Memory: 24 << 30, OS: "Debian", Kernel: "6.18", Disk: "ext2/ext3", Congestion: "cubic"},
		Versions: map[string]string{"containerd": "containerd v2.4.2", "go": "go1.26", "unpigz": "none"},
	}
}

// measured records some rounds of a value, which scatter a little.
func measured(rec *result.Recorder, rounds int, f result.Figure, value float64) {
	for round := range rounds {
		rec.Add(round, f, value*(1+0.02*math.Sin(float64(round)+value)))
	}
}

func sampleStart() *result.Report {
	r := newReport("cold-start", "overlayfs")
	rec := result.NewRecorder(r)
	for l, link := range []string{"1 Gbit/s", "200 Mbit/s, 20 ms"} {
		for c, name := range []string{"debian", "python"} {
			for s, system := range []string{"overlayfs", "overlayfs-zstd", "ipcs", "stargz"} {
				f := result.Figure{Case: name, Link: link, System: system, Metric: "ready", Unit: "s", Better: result.Lower}
				rounds := 5
				if system == "stargz" && name == "python" { // it ended before the others
					rounds = 3
				}
				measured(rec, rounds, f, 3*[]float64{1, 0.75, 0.3, 0.2}[s]*float64(1+l+c))
				f.Metric, f.Unit = "received", "B"
				measured(rec, 5, f, 63e6*[]float64{1, 0.85, 0.05, 0.08}[s]*float64(1+c))
				if f.Metric, f.Unit = "cpu", "s"; s < 3 {
					measured(rec, 5, f, []float64{1, 0.6, 1.4}[s])
				}
			}
		}
	}
	rec.Finish()
	r.Images = map[string]result.Image{"base": {Bytes: 31e6}, "debian": {Bytes: 103e6}, "debian+zstd": {Bytes: 88e6}}
	r.Missing = []result.Missing{
		{System: "erofs", Reason: "mkfs.erofs is older than 1.8"},
		{Case: "debian", System: "stargz", Reason: "it did | not start\na log", Failed: true},
		{Case: "python", Link: "1 Gbit/s", System: "erofs", Reason: "no mount", Failed: true},
	}
	return r
}

func sampleGrowth() *result.Report {
	r := newReport("growth", "overlayfs")
	rec := result.NewRecorder(r)
	for i, name := range []string{"files-10k", "files-100k", "files-1m"} {
		f := result.Figure{Case: name, System: "overlayfs", Metric: "ready", Unit: "s", Better: result.Lower}
		measured(rec, 3, f, 2*math.Pow(6, float64(i)))
		f.System = "ipcs"
		measured(rec, 3, f, 0.8*math.Pow(9, float64(i)))
	}
	rec.Finish()
	return r
}

func sampleConvert() *result.Report {
	r := newReport("convert", "tar")
	rec := result.NewRecorder(r)
	for s, system := range []string{"tar", "convert"} {
		f := result.Figure{Case: "debian", System: system, Metric: "time", Unit: "s", Better: result.Lower}
		measured(rec, 5, f, 1.8+0.4*float64(s))
	}
	rec.Add(0, result.Figure{Case: "debian", System: "convert", Metric: "layers", Unit: ""}, 4)
	rec.Finish()
	return r
}

func TestGolden(t *testing.T) {
	got, err := report.Render(sample())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := got.Save("testdata"); err != nil {
			t.Fatal(err)
		}
	}
	want, err := report.Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	if diff := got.Diff(want); len(diff) > 0 {
		t.Errorf("other than in testdata: %s; look at what \"go test -update\" changes there", strings.Join(diff, ", "))
	}
}

// Charts must be XML that any viewer can read, and bring nothing that is run or fetched.
func TestCharts(t *testing.T) {
	files, err := report.Render(sample())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, text := range files {
		if !strings.HasSuffix(name, ".svg") {
			continue
		}
		seen++
		for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for _, bad := range []string{"<script", "href", "NaN", "Inf"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s has %q", name, bad)
			}
		}
		if !strings.Contains(string(files[report.Document]), "]("+name+")") {
			t.Errorf("%s is not in the document", name)
		}
	}
	if seen == 0 {
		t.Error("no charts")
	}
}

// Every row of a table has the cells of its head.
func TestTables(t *testing.T) {
	files, err := report.Render(sample())
	if err != nil {
		t.Fatal(err)
	}
	cell := regexp.MustCompile(`[^\\]\|`)
	cells := 0
	for i, line := range strings.Split(string(files[report.Document]), "\n") {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		n := len(cell.FindAllString(line, -1))
		if strings.HasPrefix(line, "|---") {
			n = strings.Count(line, "|") - 1
		}
		if cells == 0 {
			cells = n
		}
		if n != cells {
			t.Errorf("line %d has %d cells, its head %d: %s", i+1, n, cells, line)
		}
	}
}

func TestUnknownScenario(t *testing.T) {
	in := sample()
	in.Reports = append(in.Reports, newReport("gone", "overlayfs"))
	if _, err := report.Render(in); err == nil || !strings.Contains(err.Error(), "gone.json") {
		t.Errorf("got %v, want an error that names gone.json", err)
	}
}

func TestNothingMeasured(t *testing.T) {
	in := sample()
	in.Reports = nil
	files, err := report.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(files[report.Document]); len(files) != 1 || !strings.Contains(text, "`make bench ONLY=later`") {
		t.Errorf("%d files\n%s", len(files), text)
	}
}

// Save removes charts that are no more.
func TestSave(t *testing.T) {
	dir := t.TempDir()
	first := report.Files{report.Document: []byte("a"), "benchmarks/old.svg": []byte("b"), "benchmarks/kept.svg": []byte("c")}
	second := report.Files{report.Document: []byte("d"), "benchmarks/kept.svg": []byte("c")}
	for _, f := range []report.Files{first, second} {
		if err := f.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := report.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := got.Diff(f); len(diff) > 0 {
			t.Errorf("read other than written: %v", diff)
		}
	}
	if diff := first.Diff(second); !slices.Equal(diff, []string{report.Document, "benchmarks/old.svg"}) {
		t.Errorf("Diff says %s", fmt.Sprint(diff))
	}
}
