// Package result holds what the benchmarks found: its schema, its statistics, and the
// comparison of two runs.
//
// A report is one scenario of one run, in one JSON file. Its figures are medians of a
// few rounds. In each round every system was measured once, one right after the other,
// so a figure's ratio is the median of the rounds' ratios: machines drift, and what
// drifts slower than a round takes no part in it. docs/benchmarks.md describes the
// schema for readers of the files.
//
// The package does no measuring and has no concurrency.
package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Schema is the version of the files' format. A reader refuses others.
const Schema = 1

// A Report is what one run of one scenario found.
type Report struct {
	Schema   int               `json:"schema"`
	Scenario string            `json:"scenario"`
	Base     string            `json:"base"`    // the system that ratios are to
	Command  string            `json:"command"` // what makes this report again
	Commit   string            `json:"commit"`  // of ipcs
	Quick    bool              `json:"quick"`
	Started  time.Time         `json:"started"`
	Seconds  float64           `json:"seconds"` // how long it took, preparations included
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"` // of the programs that took part
	Images   map[string]Image  `json:"images,omitempty"`
	Figures  []Figure          `json:"figures"`
	Missing  []Missing         `json:"missing,omitempty"`
}

// Machine is what it ran on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"` // bytes
	OS     string `json:"os"`
	Kernel string `json:"kernel"`
	Disk   string `json:"disk"` // type of the file system below the machines' disks
	// Congestion is what the machines' TCP controls congestion with.
	Congestion string `json:"congestion"`
}

// An Image is one that was measured, before anything was made of it.
type Image struct {
	Manifest string `json:"manifest"` // its digest
	Bytes    int64  `json:"bytes"`    // of all layers, compressed
}

// A Figure is one metric of one system in one case.
type Figure struct {
	Case   string    `json:"case"`
	Link   string    `json:"link,omitempty"` // "" where none takes part
	System string    `json:"system"`
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"`
	Better string    `json:"better,omitempty"` // "lower", "higher", or "" for what is neither
	Runs   []float64 `json:"runs"`             // one a round, in order
	Median float64   `json:"median"`
	// Spread is the distance of the largest from the smallest run, as a share of the
	// median; 0 where the median is 0.
	Spread float64 `json:"spread"`
	// Ratios are the runs divided by the base's run of the same round, and Ratio is
	// their median; none for the base itself and where the base has no such figure.
	Ratios []float64 `json:"ratios,omitempty"`
	Ratio  *float64  `json:"ratio,omitempty"`
}

// Key tells figures apart within a report.
func (f Figure) Key() string {
	return strings.Join([]string{f.Case, f.Link, f.System, f.Metric}, "|")
}

// Missing says why there is no figure: a system that is not on this machine, something
// that ipcs cannot do yet, or a measurement that failed.
type Missing struct {
	Case   string `json:"case,omitempty"` // "" for all
	Link   string `json:"link,omitempty"`
	System string `json:"system,omitempty"` // "" for all
	Reason string `json:"reason"`
	Failed bool   `json:"failed,omitempty"` // it was tried
}

// A Metric is what is measured.
type Metric struct {
	Name, Unit, Better string
}

// Directions of a metric.
const (
	Lower  = "lower"
	Higher = "higher"
)

// ErrSchema is returned for a file of another version.
var ErrSchema = errors.New("unknown version of the results' schema")

// Save writes the report to DIR/SCENARIO.json.
func (r *Report) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, r.Scenario+".json")
	if err := os.WriteFile(path+".part", append(compact(text), '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// numbers is a list of them as MarshalIndent writes it. Strings have no newline in JSON.
var numbers = regexp.MustCompile(`\[\n[-+0-9.eE,\s]+\]`)

// compact puts lists of numbers on one line: the files are read by people too.
func compact(text []byte) []byte {
	return numbers.ReplaceAllFunc(text, func(list []byte) []byte {
		one := strings.Join(strings.Fields(string(list)), " ")
		one = strings.Replace(one, "[ ", "[", 1)
		return []byte(strings.Replace(one, " ]", "]", 1))
	})
}

// Load reads every report in a folder, or one file, in the order of their names.
func Load(path string) ([]*Report, error) {
	files := []string{path}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.json")); err != nil {
			return nil, err
		}
		slices.Sort(files)
	}
	var reports []*Report
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var r Report
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if r.Schema != Schema {
			return nil, fmt.Errorf("%s: %w: %d, want %d", file, ErrSchema, r.Schema, Schema)
		}
		reports = append(reports, &r)
	}
	return reports, nil
}
