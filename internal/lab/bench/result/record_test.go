package result_test

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// figure returns the figure of a system of the only case.
func figure(t *testing.T, r *result.Report, system string) result.Figure {
	t.Helper()
	i := slices.IndexFunc(r.Figures, func(f result.Figure) bool { return f.System == system })
	if i < 0 {
		t.Fatalf("no figure of %s among %v", system, r.Figures)
	}
	return r.Figures[i]
}

// record makes a report of one case from the runs of each system; NaN is a missing run.
func record(base string, runs map[string][]float64) *result.Report {
	r := &result.Report{Schema: result.Schema, Scenario: "s", Base: base}
	rec := result.NewRecorder(r)
	for _, system := range slices.Sorted(maps.Keys(runs)) {
		for round, v := range runs[system] {
			if !math.IsNaN(v) {
				rec.Add(round, result.Figure{Case: "c", System: system, Metric: "m", Unit: "s", Better: result.Lower}, v)
			}
		}
	}
	rec.Finish()
	return r
}

// Ratios are made within rounds: a machine that gets slower from round to round changes
// the runs, but not what is found.
func TestRatiosAreOfRounds(t *testing.T) {
	r := record("base", map[string][]float64{"base": {1, 2, 4}, "other": {2, 4, 8}})
	f := figure(t, r, "other")
	if want := []float64{2, 2, 2}; !slices.Equal(f.Ratios, want) || *f.Ratio != 2 {
		t.Errorf("ratios %v, median %v: want %v", f.Ratios, *f.Ratio, want)
	}
	if f.Median != 4 || f.Spread != 1.5 {
		t.Errorf("median %v, spread %v: want 4 and 1.5", f.Median, f.Spread)
	}
	if b := figure(t, r, "base"); b.Ratio != nil || b.Ratios != nil {
		t.Errorf("the base has ratios to itself: %v", b.Ratios)
	}
}

func TestMissingRounds(t *testing.T) {
	gap := math.NaN()
	r := record("base", map[string][]float64{"base": {1, gap, 4, 0}, "other": {gap, 4, 8, 9}})
	f := figure(t, r, "other")
	if want := []float64{4, 8, 9}; !slices.Equal(f.Runs, want) {
		t.Errorf("runs %v, want %v", f.Runs, want)
	}
	if want := []float64{2}; !slices.Equal(f.Ratios, want) {
		t.Errorf("ratios %v, want %v: of the rounds in which both have a run that is not 0", f.Ratios, want)
	}
}

func TestNoBase(t *testing.T) {
	f := figure(t, record("tar", map[string][]float64{"other": {1}}), "other")
	if f.Ratio != nil || len(f.Ratios) != 0 {
		t.Errorf("a ratio to nothing: %v", f.Ratios)
	}
}

// The last value of a round counts, and the order of figures is that of their first.
func TestRecordTwice(t *testing.T) {
	r := &result.Report{Base: "b"}
	rec := result.NewRecorder(r)
	for i, v := range []float64{5, 6, 7} {
		rec.Add(0, result.Figure{System: []string{"z", "a", "z"}[i]}, v)
	}
	rec.Finish()
	if len(r.Figures) != 2 || r.Figures[0].System != "z" || !reflect.DeepEqual(r.Figures[0].Runs, []float64{7}) {
		t.Errorf("figures %v", r.Figures)
	}
}
