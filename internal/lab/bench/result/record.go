package result

import "slices"

// A Recorder collects the runs of one report and makes figures of them. Runs of a
// round that was not finished are dropped with it.
type Recorder struct {
	report *Report
	order  []string
	series map[string]*series
}

// series are the runs of one figure, by round.
type series struct {
	figure Figure
	runs   map[int]float64
}

// NewRecorder returns a recorder for the report.
func NewRecorder(r *Report) *Recorder {
	return &Recorder{report: r, series: map[string]*series{}}
}

// Add records one run. Of two values for the same round the later counts.
func (rec *Recorder) Add(round int, f Figure, value float64) {
	key := f.Key()
	s := rec.series[key]
	if s == nil {
		s = &series{figure: f, runs: map[int]float64{}}
		rec.series[key] = s
		rec.order = append(rec.order, key)
	}
	s.runs[round] = value
}

// Finish puts the figures into the report.
func (rec *Recorder) Finish() {
	rec.report.Figures = nil
	for _, key := range rec.order {
		s := rec.series[key]
		f := s.figure
		rounds := make([]int, 0, len(s.runs))
		for round := range s.runs {
			rounds = append(rounds, round)
		}
		slices.Sort(rounds)
		base := rec.base(f)
		for _, round := range rounds {
			f.Runs = append(f.Runs, s.runs[round])
			if base == nil {
				continue
			}
			if b, ok := base.runs[round]; ok && b != 0 {
				f.Ratios = append(f.Ratios, s.runs[round]/b)
			}
		}
		f.Median = Median(f.Runs)
		f.Spread = Spread(f.Runs)
		if len(f.Ratios) > 0 {
			ratio := Median(f.Ratios)
			f.Ratio = &ratio
		}
		rec.report.Figures = append(rec.report.Figures, f)
	}
}

// base returns the runs that ratios of f are to; nil if there are none.
func (rec *Recorder) base(f Figure) *series {
	if f.System == rec.report.Base {
		return nil
	}
	f.System = rec.report.Base
	return rec.series[f.Key()]
}

// Median of the values, which are not empty: the middle one, or the mean of the two.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// Spread is the distance between the extremes as a share of the median.
func Spread(values []float64) float64 {
	m := Median(values)
	if m == 0 {
		return 0
	}
	return (slices.Max(values) - slices.Min(values)) / m
}
