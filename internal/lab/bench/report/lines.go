package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// lines is a chart of how a metric grows.
type lines struct {
	title  string
	metric result.Metric
	what   string // the family's name
	series []series
}

type series struct {
	system string
	points []point
}

type point struct {
	count int
	value float64
}

// lines makes the chart of a family of cases; without series where no system has two.
func (v *view) lines(metric result.Metric, link string, f family) *lines {
	c := &lines{metric: metric, what: f.name}
	for _, system := range v.systems {
		s := series{system: system}
		for _, name := range f.cases {
			if fig, ok := v.figure(name, link, system, metric.Name); ok {
				s.points = append(s.points, point{v.count(name), fig.Median})
			}
		}
		slices.SortFunc(s.points, func(a, b point) int { return cmp.Compare(a.count, b.count) })
		if len(s.points) >= 2 {
			c.series = append(c.series, s)
		}
	}
	return c
}

// Measures of lines, in pixels.
const (
	plotLeft   = 64.0
	plotRight  = 200.0 // room for the names at the ends
	plotTop    = 56.0
	plotHeight = 260.0
	plotFoot   = 46.0
	labelStep  = 16.0
)

// svg draws it: both axes from 0 unless the counts range over more than a factor of 8,
// which is drawn with equal steps for equal factors.
func (c *lines) svg() string {
	s := &svg{width: chartWidth, height: plotTop + plotHeight + plotFoot}
	counts, most := c.extent()
	step := niceStep(most / 4)
	top := step * math.Ceil(most/step)
	x := xAxis(counts)
	y := func(v float64) float64 { return plotTop + plotHeight*(1-v/top) }
	s.text(0, 16, "start", "h", c.title)
	s.text(0, 34, "start", "m", c.subtitle())
	for i := 0; float64(i)*step <= top*1.001; i++ {
		v := float64(i) * step
		s.line(plotLeft, y(v), chartWidth-plotRight, y(v), "g")
		s.text(plotLeft-8, y(v)+4, "end", "m", result.Format(v, c.metric.Unit))
	}
	for _, n := range counts {
		s.text(x(n), plotTop+plotHeight+18, "middle", "m", thousands(n))
	}
	s.text((plotLeft+chartWidth-plotRight)/2, plotTop+plotHeight+38, "middle", "m", c.axis(counts))
	var description strings.Builder
	ends := make([]float64, len(c.series))
	// Ours are drawn last, over the others.
	order := slices.Clone(c.series)
	slices.SortStableFunc(order, func(a, b series) int {
		return cmp.Compare(btoi(ours(a.system)), btoi(ours(b.system)))
	})
	for i, one := range order {
		var points [][2]float64
		fmt.Fprintf(&description, " %s:", one.system)
		for _, p := range one.points {
			points = append(points, [2]float64{x(p.count), y(p.value)})
			fmt.Fprintf(&description, " %s at %s,", result.Format(p.value, c.metric.Unit), thousands(p.count))
		}
		s.curve(points, one.system)
		ends[i] = points[len(points)-1][1]
	}
	c.labels(s, order, ends, x)
	return s.String(c.title, c.subtitle()+"."+strings.TrimSuffix(description.String(), ","))
}

// labels writes name and last value at the end of each line, moved apart where they
// would overlap, with a thin line to where it ended.
func (c *lines) labels(s *svg, order []series, ends []float64, x func(int) float64) {
	places := apart(ends, plotTop, plotTop+plotHeight)
	for i, one := range order {
		last := one.points[len(one.points)-1]
		s.line(x(last.count)+5, ends[i], chartWidth-plotRight+18, places[i], "g")
		s.text(chartWidth-plotRight+22, places[i]+4, "start", emphasis(one.system),
			one.system+"  "+result.Format(last.value, c.metric.Unit))
	}
}

// axis names the count by the cases: N of files-N.
func (c *lines) axis(counts []int) string {
	text := "N of " + c.what + "-N"
	if logarithmic(counts) {
		text += ", logarithmic"
	}
	return text
}

func (c *lines) subtitle() string {
	switch c.metric.Better {
	case result.Lower:
		return "median; lower is better"
	case result.Higher:
		return "median; higher is better"
	}
	return "median"
}

// extent returns the counts that occur, and the largest value.
func (c *lines) extent() (counts []int, most float64) {
	for _, s := range c.series {
		for _, p := range s.points {
			counts = append(counts, p.count)
			most = max(most, p.value)
		}
	}
	slices.Sort(counts)
	if most == 0 {
		most = 1
	}
	return slices.Compact(counts), most
}

// logarithmic reports whether the counts range so far that the small ones would be one
// spot on an even axis.
func logarithmic(counts []int) bool { return counts[0] > 0 && counts[len(counts)-1] > 8*counts[0] }

// xAxis returns where a count is.
func xAxis(counts []int) func(int) float64 {
	first, last := float64(counts[0]), float64(counts[len(counts)-1])
	width := chartWidth - plotRight - plotLeft
	if logarithmic(counts) {
		return func(n int) float64 { return plotLeft + width*math.Log(float64(n)/first)/math.Log(last/first) }
	}
	return func(n int) float64 { return plotLeft + width*float64(n)/last }
}

// niceStep rounds up to 1, 2, 2.5 or 5 times a power of ten.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if v <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// apart returns places near the wanted ones that are a line of text from each other,
// between top and bottom.
func apart(wanted []float64, top, bottom float64) []float64 {
	order := make([]int, len(wanted))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(wanted[a], wanted[b]) })
	places := slices.Clone(wanted)
	least := top
	for _, i := range order {
		places[i] = max(places[i], least)
		least = places[i] + labelStep
	}
	most := bottom
	for _, i := range slices.Backward(order) {
		places[i] = min(places[i], most)
		most = places[i] - labelStep
	}
	return places
}

// thousands writes a count as 10, 10k or 1M.
func thousands(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
