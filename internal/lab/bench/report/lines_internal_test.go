package report

import (
	"slices"
	"testing"
)

// Labels keep their order and a line of distance, and stay where they are if they can.
func TestApart(t *testing.T) {
	for _, test := range []struct{ wanted, want []float64 }{
		{[]float64{10, 100}, []float64{10, 100}},
		{[]float64{50, 50, 50}, []float64{50, 66, 82}},
		{[]float64{100, 98}, []float64{100, 84}},
		{[]float64{0}, []float64{5}},
	} {
		if got := apart(test.wanted, 5, 100); !slices.Equal(got, test.want) {
			t.Errorf("apart(%v) = %v, want %v", test.wanted, got, test.want)
		}
	}
}

func TestNiceStep(t *testing.T) {
	for v, want := range map[float64]float64{1: 1, 1.1: 2, 2.2: 2.5, 3: 5, 7: 10, 0.03: 0.05, 17.7: 20} {
		if got := niceStep(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("niceStep(%v) = %v, want %v", v, got, want)
		}
	}
}

// Cases of the same thing make a family, but two alone do not make a line.
func TestFamilies(t *testing.T) {
	v := &view{cases: []string{"python-1", "python-16", "files-10k", "files-100k", "files-1m", "plain"}}
	for i, c := range v.cases[:5] {
		v.Section.Cases = append(v.Section.Cases, Case{Name: c, Count: i + 1})
	}
	families, rest := v.families()
	if len(families) != 1 || families[0].name != "files" || len(families[0].cases) != 3 {
		t.Errorf("families %v", families)
	}
	if !slices.Equal(rest, []string{"python-1", "python-16", "plain"}) {
		t.Errorf("the rest is %v", rest)
	}
}
