package result_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// report makes a report with one figure of system "ipcs" besides the base's, both with
// the values of five rounds or fewer. The base's runs are 1, so that runs are ratios.
func report(better string, values ...float64) *result.Report {
	r := &result.Report{Scenario: "s", Base: "base"}
	rec := result.NewRecorder(r)
	for round, v := range values {
		rec.Add(round, result.Figure{Case: "c", System: "base", Metric: "m", Unit: "s", Better: better}, 1)
		rec.Add(round, result.Figure{Case: "c", System: "ipcs", Metric: "m", Unit: "s", Better: better}, v)
	}
	rec.Finish()
	return r
}

// line returns what a comparison says of system ipcs.
func line(t *testing.T, c *result.Comparison, system string) result.Line {
	t.Helper()
	for _, l := range c.Lines {
		if l.System == system {
			return l
		}
	}
	t.Fatalf("no line of %s in %+v", system, c)
	return result.Line{}
}

func TestVerdicts(t *testing.T) {
	five := []float64{1.00, 1.01, 1.02, 0.99, 0.98}
	for name, test := range map[string]struct {
		better   string
		old, new []float64
		want     result.Verdict
		tested   bool
	}{
		"slower":                       {result.Lower, five, []float64{1.10, 1.11, 1.12, 1.13, 1.09}, result.Worse, true},
		"faster":                       {result.Lower, five, []float64{0.80, 0.81, 0.79, 0.82, 0.78}, result.Better, true},
		"more":                         {result.Higher, five, []float64{1.10, 1.11, 1.12, 1.13, 1.09}, result.Better, true},
		"neither":                      {"", five, []float64{1.10, 1.11, 1.12, 1.13, 1.09}, result.Changed, true},
		"equal":                        {result.Lower, five, five, result.Same, true},
		"all the same":                 {result.Lower, []float64{2, 2, 2, 2}, []float64{2, 2, 2, 2}, result.Same, true},
		"overlapping":                  {result.Lower, five, []float64{1.3, 1.0, 0.9, 1.2, 1.1}, result.Same, true},
		"certain but too small":        {result.Lower, []float64{1, 1, 1, 1, 1}, []float64{1.02, 1.02, 1.02, 1.02, 1.02}, result.Same, true},
		"few, apart":                   {result.Lower, five, []float64{1.2, 1.21, 1.22}, result.Worse, false},
		"few, apart but too small":     {result.Lower, five, []float64{1.05, 1.06, 1.07}, result.Same, false},
		"few, overlapping":             {result.Lower, five, []float64{1.01, 1.4, 1.5}, result.Same, false},
		"one each":                     {result.Lower, []float64{1}, []float64{1.06}, result.Worse, false},
		"one each, too small":          {result.Lower, []float64{1}, []float64{1.04}, result.Same, false},
		"one against many":             {result.Lower, five, []float64{1.06}, result.Same, false},
		"one far from many":            {result.Lower, five, []float64{3}, result.Same, false},
		"many far from one":            {result.Lower, []float64{3}, five, result.Same, false},
		"something where nothing was":  {result.Lower, []float64{0}, []float64{3}, result.Worse, false},
		"nothing in either of the two": {result.Lower, []float64{0}, []float64{0}, result.Same, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := line(t, result.Compare([]*result.Report{report(test.better, test.old...)}, []*result.Report{report(test.better, test.new...)}), "ipcs")
			if l.Verdict != test.want || (l.P != nil) != test.tested || !l.Ratio {
				t.Errorf("got %s, tested %v, of ratios %v: want %s, %v", l.Verdict, l.P != nil, l.Ratio, test.want, test.tested)
			}
		})
	}
}

// On another machine all may be twice as slow; only what changed against the base did.
func TestOnlyRatiosOfOtherMachines(t *testing.T) {
	before := record("base", map[string][]float64{"base": {1, 1, 1, 1}, "ipcs": {2, 2, 2, 2}, "other": {2, 2, 2, 2}})
	after := record("base", map[string][]float64{"base": {2, 2, 2, 2}, "ipcs": {4, 4, 4, 4}, "other": {3, 3, 3, 3}})
	same := result.Compare([]*result.Report{before}, []*result.Report{after})
	if l := line(t, same, "base"); l.Ratio || l.Verdict != result.Worse {
		t.Errorf("the base of the same machine: %+v", l)
	}
	after.Machine.CPU = "another"
	c := result.Compare([]*result.Report{before}, []*result.Report{after})
	if len(c.Lines) != 2 || c.Incomparable != 1 {
		t.Fatalf("%d lines, %d incomparable; want 2, 1", len(c.Lines), c.Incomparable)
	}
	if l := line(t, c, "ipcs"); l.Verdict != result.Same {
		t.Errorf("ipcs: %s, want no change", l.Verdict)
	}
	if l := line(t, c, "other"); l.Verdict != result.Better || *l.Change != -0.25 {
		t.Errorf("other: %s by %v, want better by -0.25", l.Verdict, *l.Change)
	}
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "different machines") {
		t.Errorf("notes %q", c.Notes)
	}
}

func TestCompareWhatOneHas(t *testing.T) {
	before := record("base", map[string][]float64{"base": {1}, "gone": {1}, "heals": {1}})
	after := record("base", map[string][]float64{"base": {1}, "come": {1}, "heals": {1}})
	after.Quick = true
	before.Missing = []result.Missing{{Case: "c", System: "heals", Failed: true}, {Case: "other", System: "heals", Failed: true}}
	after.Missing = []result.Missing{{Case: "c", System: "gone", Reason: "it broke\nlog", Failed: true}, {System: "absent", Reason: "not here"}}
	alone, too := &result.Report{Scenario: "alone"}, &result.Report{Scenario: "too"}
	c := result.Compare([]*result.Report{before, alone, too}, []*result.Report{after, {Scenario: "new"}})
	if len(c.OnlyOld) != 1 || c.OnlyOld[0].System != "gone" || len(c.OnlyNew) != 1 || c.OnlyNew[0].System != "come" {
		t.Errorf("only in one: %+v, %+v", c.OnlyOld, c.OnlyNew)
	}
	if len(c.Failed) != 1 || c.Failed[0].System != "gone" || !c.Worse() {
		t.Errorf("newly failed: %+v", c.Failed)
	}
	if len(c.Works) != 1 || c.Works[0].Case != "c" {
		t.Errorf("works now: %+v; want what was measured now", c.Works)
	}
	var text bytes.Buffer
	if err := c.Text(&text, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"alone, too: only in the old run", "new: only in the new run", "s: whole run before, quick run now",
		"FAILED, and did not before:\n  s c gone: it broke\n", "Only in the new run:", "1 only in the old run, 1 only in the new one",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	if c.Single != 0 {
		t.Errorf("%d figures with one run on one side, want none", c.Single)
	}
	if _, err := json.Marshal(c); err != nil {
		t.Error(err)
	}
}

func TestCompareText(t *testing.T) {
	c := result.Compare([]*result.Report{report(result.Lower, 1, 1, 1, 1, 1)}, []*result.Report{report(result.Lower, 1.5, 1.5, 1.5, 1.5, 1.5)})
	var text bytes.Buffer
	if err := c.Text(&text, false); err != nil {
		t.Fatal(err)
	}
	want := `
Worse:
  scenario  case  link  system  metric  old          new          change   p, n
  s         c     -     ipcs    m       ×1.00 ±<1 %  ×1.50 ±<1 %  +50.0 %  p=0.008 n=5+5

2 figures compared: 1 worse, 0 better, 0 changed, 1 not beyond noise
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &text, want)
	}
}

// What is not judged and what is not of the same image is said.
func TestCompareSays(t *testing.T) {
	before, after := report(result.Lower, 1, 1, 1, 1, 1), report(result.Lower, 3)
	before.Images = map[string]result.Image{"a": {Manifest: "sha256:1"}, "b": {Manifest: "sha256:2"}, "gone": {Manifest: "sha256:3"}}
	after.Images = map[string]result.Image{"a": {Manifest: "sha256:1"}, "b": {Manifest: "sha256:4"}, "come": {Manifest: "sha256:5"}}
	c := result.Compare([]*result.Report{before}, []*result.Report{after})
	if len(c.Notes) != 1 || c.Notes[0] != "s: not the same image in both runs: b" {
		t.Errorf("notes %q", c.Notes)
	}
	var text bytes.Buffer
	if err := c.Text(&text, false); err != nil {
		t.Fatal(err)
	}
	if want := "2 of these not judged"; !strings.Contains(text.String(), want) {
		t.Errorf("no %q in\n%s", want, &text)
	}
}

func TestLoses(t *testing.T) {
	for name, test := range map[string]struct {
		better string
		f, to  []float64
		ratio  float64
		want   bool
	}{
		"in every round":     {result.Lower, []float64{1.1, 2.2, 3.3, 4.4}, []float64{1, 2, 3, 4}, 1.1, true},
		"but in one round":   {result.Lower, []float64{1.5, 1.5, 1.5, 0.9}, []float64{1, 1, 1, 1}, 1.5, false},
		"too little":         {result.Lower, []float64{1.02, 1.02, 1.02, 1.02}, []float64{1, 1, 1, 1}, 1.02, false},
		"too little for few": {result.Lower, []float64{1.09, 1.09}, []float64{1, 1}, 1.09, false},
		"once":               {result.Lower, []float64{1.06}, []float64{1}, 1.06, true},
		"less":               {result.Higher, []float64{0.5, 0.5}, []float64{1, 1}, 0.5, true},
		"wins":               {result.Lower, []float64{0.5, 0.5}, []float64{1, 1}, 0.5, false},
		"all of five":        {result.Lower, []float64{1.1, 1.1, 1.1, 1.1, 1.1}, ones(5), 1.1, true},
		"four of five":       {result.Lower, []float64{1.1, 1.1, 1.1, 1.1, 0.9}, ones(5), 1.1, false},
		"six of seven":       {result.Lower, []float64{1.1, 1.1, 1.1, 0.9, 1.1, 1.1, 1.1}, ones(7), 1.1, false},
		"seven of eight":     {result.Lower, []float64{1.1, 1.1, 1.1, 0.9, 1.1, 1.1, 1.1, 1.1}, ones(8), 1.1, true},
		"seven of eight up":  {result.Higher, []float64{0.9, 0.9, 0.9, 1.1, 0.9, 0.9, 0.9, 0.9}, ones(8), 0.9, true},
		"equal is not worse": {result.Lower, []float64{1.1, 1.1, 1.1, 1.1, 1}, ones(5), 1.1, false},
		"nine of eleven":     {result.Lower, []float64{1.1, 1.1, 1.1, 0.9, 1.1, 1.1, 1.1, 1.1, 0.9, 1.1, 1.1}, ones(11), 1.1, true},
		"eight of eleven":    {result.Lower, []float64{1.1, 1.1, 0.9, 0.9, 1.1, 1.1, 1.1, 1.1, 0.9, 1.1, 1.1}, ones(11), 1.1, false},
		"fewer rounds":       {result.Lower, []float64{3}, []float64{1, 9}, 3, true},
		"nothing":            {result.Lower, []float64{3}, []float64{0}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			ratio, loses := result.Figure{Runs: test.f, Better: test.better}.Loses(result.Figure{Runs: test.to})
			if diff := ratio - test.ratio; loses != test.want || diff > 1e-9 || diff < -1e-9 {
				t.Errorf("got %v, %v: want %v, %v", ratio, loses, test.ratio, test.want)
			}
		})
	}
}

func ones(n int) []float64 { return slices.Repeat([]float64{1}, n) }
