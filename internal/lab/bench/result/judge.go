package result

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// A Verdict says what became of a figure.
type Verdict string

// What a verdict can be.
const (
	Better  Verdict = "better"
	Worse   Verdict = "worse"
	Changed Verdict = "changed" // beyond noise, of a metric that is neither better nor worse
	Same    Verdict = "~"       // not beyond noise
)

// What is beyond noise: the medians must differ by more than a share, which depends on
// how sure the runs can make us.
const (
	enoughRuns = 4    // of both sides: below that no U-test reaches 5 %
	signRounds = 5    // below that no one-sided sign test does
	alpha      = 0.05 // of both tests

	shareTested = 0.03 // with enough runs, and a difference that the test finds
	shareFew    = 0.10 // with fewer, whose ranges must not overlap
	shareSingle = 0.05 // with one run each: what is measured once does not scatter
)

// judge says whether two samples, which are not empty, differ beyond noise, and the
// probability of the U-test where there are enough runs for one.
func judge(before, after []float64) (beyond bool, p *float64) {
	change := relative(Median(before), Median(after))
	switch n := min(len(before), len(after)); {
	case n >= enoughRuns:
		sample := func(values []float64) *benchmath.Sample {
			return benchmath.NewSample(slices.Clone(values), &benchmath.Thresholds{CompareAlpha: alpha})
		}
		c := benchmath.AssumeNothing.Compare(sample(before), sample(after))
		return c.P < alpha && change > shareTested, &c.P
	case len(before) == 1 && len(after) == 1:
		return change > shareSingle, nil
	case n == 1:
		return false, nil // who knows where in the range of others one more run would be
	default:
		apart := slices.Max(before) < slices.Min(after) || slices.Max(after) < slices.Min(before)
		return apart && change > shareFew, nil
	}
}

// relative is how far b is from a, as a share of a. From nothing to something is more
// than any share.
func relative(a, b float64) float64 {
	if a == b {
		return 0
	}
	return math.Abs(b-a) / math.Abs(a)
}

// verdict puts a difference beyond noise into a word.
func verdict(better string, before, after float64) Verdict {
	switch {
	case better == "":
		return Changed
	case (after < before) == (better == Lower):
		return Better
	}
	return Worse
}

// Loses says whether a figure is worse than another of the same case, link and metric
// beyond noise, and how many times the other it is. Rounds are compared with each other:
// it must be worse in the median by more than the share that two separate runs would
// have to differ by, and in so many rounds that chance hardly makes them (oftenEnough).
func (f Figure) Loses(to Figure) (ratio float64, loses bool) {
	// Where one has fewer rounds it failed after them: they are the first ones.
	n := min(len(f.Runs), len(to.Runs))
	if n == 0 || f.Better == "" {
		return 0, false
	}
	ratios := make([]float64, 0, n)
	worse := 0
	for i := range n {
		if to.Runs[i] == 0 {
			return 0, false
		}
		r := f.Runs[i] / to.Runs[i]
		if r != 1 && (r > 1) == (f.Better == Lower) {
			worse++
		}
		ratios = append(ratios, r)
	}
	share := shareFew
	switch {
	case n >= enoughRuns:
		share = shareTested
	case n == 1:
		share = shareSingle
	}
	ratio = Median(ratios)
	beyond := ratio > 1+share
	if f.Better == Higher {
		beyond = ratio < 1-share
	}
	return ratio, beyond && oftenEnough(worse, n)
}

// oftenEnough says whether being worse in so many of n rounds is more than chance: with a
// one-sided sign test, which needs five rounds to find anything, and in all rounds where
// there are fewer. To ask for all of many rounds would hide a loss behind one odd round.
func oftenEnough(worse, n int) bool {
	if n < signRounds {
		return worse == n
	}
	p := 0.0
	for k := worse; k <= n; k++ {
		p += math.Exp2(float64(-n)) * binomial(n, k)
	}
	return p <= alpha
}

// binomial is the number of ways to choose k of n.
func binomial(n, k int) float64 {
	b := 1.0
	for i := range k {
		b = b * float64(n-i) / float64(i+1)
	}
	return b
}
