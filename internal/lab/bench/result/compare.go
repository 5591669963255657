package result

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Comparison is what became of the figures from one run to another.
type Comparison struct {
	Notes  []string `json:"notes,omitempty"` // what a reader must know before the lines
	Failed []Tried  `json:"failed,omitempty"`
	Works  []Tried  `json:"works,omitempty"` // failed in the old run and no more
	Lines  []Line   `json:"lines"`
	// Only are the figures that the other run does not have, though it has the scenario.
	OnlyOld []Line `json:"only_old,omitempty"`
	OnlyNew []Line `json:"only_new,omitempty"`
	// Incomparable is the number of figures that both have as absolute values alone, of
	// different machines.
	Incomparable int `json:"incomparable,omitempty"`
	// Single is the number of figures with one run on one side and more on the other,
	// which are not judged.
	Single int `json:"single,omitempty"`
}

// Tried is a measurement that failed in one of the runs.
type Tried struct {
	Scenario string `json:"scenario"`
	Missing
}

// A Line compares one figure.
type Line struct {
	Scenario string `json:"scenario"`
	Case     string `json:"case"`
	Link     string `json:"link,omitempty"`
	System   string `json:"system"`
	Metric   string `json:"metric"`
	Unit     string `json:"unit"`
	// Ratio says that Old and New are ratios to the base, each within its own run; else
	// they are absolute values.
	Ratio   bool     `json:"ratio"`
	Old     *Sample  `json:"old,omitempty"`
	New     *Sample  `json:"new,omitempty"`
	Change  *float64 `json:"change,omitempty"` // of the medians, as a share of the old one; none from 0
	P       *float64 `json:"p,omitempty"`      // of the U-test; none where there are too few runs for one
	Verdict Verdict  `json:"verdict,omitempty"`
}

// A Sample is one side of a line.
type Sample struct {
	Median float64 `json:"median"`
	Spread float64 `json:"spread"`
	N      int     `json:"n"`
}

func newSample(values []float64) *Sample {
	return &Sample{Median: Median(values), Spread: Spread(values), N: len(values)}
}

// Worse reports whether anything got worse beyond noise or fails now.
func (c *Comparison) Worse() bool {
	return len(c.Failed) > 0 || slices.ContainsFunc(c.Lines, func(l Line) bool { return l.Verdict == Worse })
}

// Compare says what became of the figures of one run in another. Seconds of different
// runs say little and of different machines nothing, so ratios are compared wherever
// both runs have them, and absolute values only of the same machine.
func Compare(before, after []*Report) *Comparison {
	c := &Comparison{Lines: []Line{}}
	scenarios := map[string]*Report{}
	for _, r := range before {
		scenarios[r.Scenario] = r
	}
	var absent []string
	for _, r := range after {
		if o := scenarios[r.Scenario]; o != nil {
			c.scenario(o, r)
		} else {
			absent = append(absent, r.Scenario)
		}
		delete(scenarios, r.Scenario)
	}
	for _, s := range absent {
		c.note(s, "only in the new run")
	}
	for _, s := range slices.Sorted(maps.Keys(scenarios)) {
		c.note(s, "only in the old run")
	}
	return c
}

// note adds a note about a scenario, to those that it shares the text with.
func (c *Comparison) note(scenario, text string) {
	for i, n := range c.Notes {
		if others, ok := strings.CutSuffix(n, ": "+text); ok {
			c.Notes[i] = others + ", " + scenario + ": " + text
			return
		}
	}
	c.Notes = append(c.Notes, scenario+": "+text)
}

// scenario compares the reports of one scenario.
func (c *Comparison) scenario(before, after *Report) {
	same := before.Machine == after.Machine
	if !same {
		c.note(after.Scenario, "the runs are of different machines, so that only ratios are compared")
	}
	if before.Quick != after.Quick {
		c.note(after.Scenario, kind(before.Quick)+" run before, "+kind(after.Quick)+" run now: what both measured is compared")
	}
	if names := changed(before.Images, after.Images); len(names) > 0 {
		c.note(after.Scenario, "not the same image in both runs: "+strings.Join(names, ", "))
	}
	ratios := before.Base == after.Base
	if !ratios {
		c.note(after.Scenario, fmt.Sprintf("ratios are to %s before and to %s now, and are not compared", before.Base, after.Base))
	}
	c.failures(before, after)
	figures := map[string]Figure{}
	for _, f := range before.Figures {
		figures[f.Key()+"|"+f.Unit] = f
	}
	for _, f := range after.Figures {
		key := f.Key() + "|" + f.Unit
		o, ok := figures[key]
		delete(figures, key)
		l := newLine(after.Scenario, f)
		switch {
		case !ok:
			l.New = newSample(f.Runs)
			c.OnlyNew = append(c.OnlyNew, l)
		case ratios && len(o.Ratios) > 0 && len(f.Ratios) > 0:
			l.Ratio = true
			c.compare(l, f.Better, o.Ratios, f.Ratios)
		case same:
			c.compare(l, f.Better, o.Runs, f.Runs)
		default:
			c.Incomparable++
		}
	}
	for _, f := range before.Figures { // in their order
		if _, ok := figures[f.Key()+"|"+f.Unit]; ok {
			l := newLine(before.Scenario, f)
			l.Old = newSample(f.Runs)
			c.OnlyOld = append(c.OnlyOld, l)
		}
	}
}

func kind(quick bool) string {
	if quick {
		return "quick"
	}
	return "whole"
}

func newLine(scenario string, f Figure) Line {
	return Line{Scenario: scenario, Case: f.Case, Link: f.Link, System: f.System, Metric: f.Metric, Unit: f.Unit}
}

// compare adds a line with what became of the values.
func (c *Comparison) compare(l Line, better string, before, after []float64) {
	l.Old, l.New = newSample(before), newSample(after)
	if l.Old.Median != 0 {
		change := (l.New.Median - l.Old.Median) / l.Old.Median
		l.Change = &change
	}
	beyond, p := judge(before, after)
	l.P, l.Verdict = p, Same
	if beyond {
		l.Verdict = verdict(better, l.Old.Median, l.New.Median)
	}
	if (len(before) == 1) != (len(after) == 1) {
		c.Single++
	}
	c.Lines = append(c.Lines, l)
}

// changed names the images that both have and that are not the same.
func changed(before, after map[string]Image) []string {
	var names []string
	for name, image := range after {
		if o, ok := before[name]; ok && o.Manifest != image.Manifest {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// failures notes what fails in one of the runs alone. What one run did not try did not
// start to work in it: a quick run tries less.
func (c *Comparison) failures(before, after *Report) {
	of := func(r *Report) map[string]bool {
		failed := map[string]bool{}
		for _, m := range r.Missing {
			if m.Failed {
				failed[m.key()] = true
			}
		}
		return failed
	}
	old, now := of(before), of(after)
	for _, m := range after.Missing {
		if m.Failed && !old[m.key()] {
			c.Failed = append(c.Failed, Tried{after.Scenario, m})
		}
	}
	for _, m := range before.Missing {
		if m.Failed && !now[m.key()] && after.has(m) {
			c.Works = append(c.Works, Tried{before.Scenario, m})
		}
	}
}

// key tells what failed apart, but not why.
func (m Missing) key() string { return m.Case + "|" + m.Link + "|" + m.System }

// has reports whether there are figures of what was missing.
func (r *Report) has(m Missing) bool {
	return slices.ContainsFunc(r.Figures, func(f Figure) bool {
		return (m.Case == "" || m.Case == f.Case) && (m.Link == "" || m.Link == f.Link) && (m.System == "" || m.System == f.System)
	})
}
