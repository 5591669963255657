// Package report writes the document of the benchmarks' results: docs/benchmarks.md with
// a chart for each table of a main metric.
//
// It is a function of its input alone, so that the committed document can be checked
// against the committed results. How a scenario is laid out follows from its figures: one
// table for every metric and link, with cases as rows and systems as columns; main
// metrics are shown with charts, others are folded. Charts are bars of the ratios to the
// base, and lines where the cases are sizes of the same thing.
//
// Everything runs in the caller's goroutine.
package report

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// Input is all that the document is made of.
type Input struct {
	Sections []Section // in the order of the document
	Systems  []System
	Unbuilt  []Unbuilt // scenarios that are still to come
	Reports  []*result.Report
	Notes    map[string]string // Markdown by scenario: why it loses where it does
	Results  string            // where the reports are, as a link in the document
}

// Unbuilt is a scenario of something that ipcs cannot do yet.
type Unbuilt struct{ Title, Reason string }

// A Section is a scenario.
type Section struct {
	Name, Title, About string
	Systems            []string // the order of columns
	Main               []string // metrics that are shown first; the first recorded one if none
	Cases              []Case
}

// A Case is a row of a scenario.
type Case struct {
	Name, Image, Before, Command string
	Count                        int // what grows from case to case
}

// A System is what is compared.
type System struct{ Name, About string }

// Files are texts by their paths below the folder for documents.
type Files map[string][]byte

// Document is the name of the document among the files, and charts is their folder.
const (
	Document = "benchmarks.md"
	charts   = "benchmarks"
)

//go:embed schema.md
var schema string

// Render makes the document and its charts.
func Render(in Input) (Files, error) {
	d := &document{in: in, files: Files{}}
	for _, r := range in.Reports {
		i := slices.IndexFunc(in.Sections, func(s Section) bool { return s.Name == r.Scenario })
		if i < 0 {
			return nil, fmt.Errorf("%s.json: there is no scenario %q any more: remove it", r.Scenario, r.Scenario)
		}
		d.views = append(d.views, newView(in.Sections[i], r))
	}
	slices.SortStableFunc(d.views, func(a, b *view) int { return d.position(a) - d.position(b) })
	d.intro()
	d.summary()
	for _, v := range d.views {
		d.section(v)
	}
	d.losses()
	d.missing()
	d.text.WriteString(schema)
	d.files[Document] = []byte(d.text.String())
	return d.files, nil
}

// document is one that is being written.
type document struct {
	in    Input
	views []*view
	text  strings.Builder
	files Files
}

func (d *document) position(v *view) int {
	return slices.IndexFunc(d.in.Sections, func(s Section) bool { return s.Name == v.Section.Name })
}

func (d *document) printf(format string, args ...any) { fmt.Fprintf(&d.text, format, args...) }

// Save writes the files below dir and removes charts of former times.
func (f Files) Save(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, charts), 0o755); err != nil {
		return err
	}
	old, err := Load(dir)
	if err != nil {
		return err
	}
	for name := range old {
		if _, ok := f[name]; !ok {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for name, text := range f {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Load reads what Save wrote; without an error where there is nothing.
func Load(dir string) (Files, error) {
	names, err := filepath.Glob(filepath.Join(dir, charts, "*.svg"))
	if err != nil {
		return nil, err
	}
	f := Files{}
	for _, name := range append(names, filepath.Join(dir, Document)) {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return nil, err
		}
		f[filepath.ToSlash(rel)] = text
	}
	return f, nil
}

// Diff names the files that differ.
func (f Files) Diff(other Files) []string {
	var names []string
	for name := range maps.Keys(f) {
		if text, ok := other[name]; !ok || string(text) != string(f[name]) {
			names = append(names, name)
		}
	}
	for name := range maps.Keys(other) {
		if _, ok := f[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// chart adds a chart to the files and shows it.
func (d *document) chart(name, alt string, svg string) {
	file := path.Join(charts, name+".svg")
	d.files[file] = []byte(svg)
	d.printf("![%s](%s)\n\n", alt, file)
}

// slug makes a name of a text as GitHub makes anchors of headings.
func slug(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		case c == ' ':
			return '-'
		}
		return -1
	}, text)
}
