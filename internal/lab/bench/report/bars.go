package report

import (
	"fmt"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// bars is a chart of a metric on one link: a group for each case, a bar for each system.
type bars struct {
	title, base string
	metric      result.Metric
	ratio       bool // bars are as long as the ratios to the base
	groups      []group
}

type group struct {
	name string
	bars []bar
}

// A bar has a value, or failed.
type bar struct {
	system string
	figure result.Figure
	mark   string // what is wanting in the figure
	failed bool
}

// bars makes the chart of some cases; without groups where there is nothing to show. It
// is of ratios wherever each case has the base.
func (v *view) bars(metric result.Metric, link string, cases []string) *bars {
	c := &bars{metric: metric, base: v.report.Base, ratio: true}
	for _, name := range cases {
		g := group{name: name}
		measured := 0
		for _, s := range v.systems {
			f, ok := v.figure(name, link, s, metric.Name)
			if ok {
				measured++
			}
			if failed := !ok && v.failed(name, link, s); ok || failed {
				g.bars = append(g.bars, bar{system: s, figure: f, mark: v.mark(f), failed: failed})
			}
		}
		if measured == 0 {
			continue
		}
		base, ok := v.figure(name, link, v.report.Base, metric.Name)
		c.ratio = c.ratio && ok && base.Median != 0
		c.groups = append(c.groups, g)
	}
	return c
}

// value is what a bar is as long as.
func (c *bars) value(b bar) float64 {
	switch {
	case b.failed:
		return 0
	case !c.ratio:
		return b.figure.Median
	case b.figure.Ratio != nil:
		return *b.figure.Ratio
	}
	return 1
}

// label is what stands behind a bar.
func (c *bars) label(b bar) string {
	if b.failed {
		return "failed"
	}
	text := result.Format(b.figure.Median, b.figure.Unit)
	if b.figure.Ratio != nil {
		text = result.FormatRatio(*b.figure.Ratio) + " (" + text + ")"
	}
	return text + b.mark
}

// Measures of bars, in pixels.
const (
	chartWidth = 760.0
	barLeft    = 136.0 // room for the systems' names
	barRight   = 150.0 // and for values
	barHeight  = 13.0
	barStep    = 17.0
	groupHead  = 20.0
	groupGap   = 12.0
	chartHead  = 48.0
)

// svg draws it.
func (c *bars) svg() string {
	s := &svg{width: chartWidth}
	most := 0.0
	for _, g := range c.groups {
		for _, b := range g.bars {
			most = max(most, c.value(b))
		}
	}
	if most == 0 {
		most = 1
	}
	scale := (chartWidth - barLeft - barRight) / most
	s.text(0, 16, "start", "h", c.title)
	s.text(0, 34, "start", "m", c.subtitle())
	y := chartHead
	var description strings.Builder
	for _, g := range c.groups {
		s.text(barLeft, y+13, "start", "b", g.name)
		y += groupHead
		top := y
		fmt.Fprintf(&description, "%s:", g.name)
		for _, b := range g.bars {
			s.text(barLeft-8, y+barHeight-2.5, "end", emphasis(b.system), b.system)
			if !b.failed {
				s.bar(barLeft, y, c.value(b)*scale, barHeight, b.system)
			}
			s.text(barLeft+c.value(b)*scale+6, y+barHeight-2.5, "start", emphasis(b.system), c.label(b))
			fmt.Fprintf(&description, " %s %s;", b.system, c.label(b))
			y += barStep
		}
		description.WriteString(" ")
		s.line(barLeft, top-2, barLeft, y-2, "g")
		y += groupGap
	}
	s.height = y
	return s.String(c.title, c.subtitle()+". "+strings.TrimSpace(description.String()))
}

// subtitle says what the bars are.
func (c *bars) subtitle() string {
	text := "median"
	if c.ratio {
		text = "ratio to " + c.base + ", and median"
	}
	switch c.metric.Better {
	case result.Lower:
		text += "; shorter is better"
	case result.Higher:
		text += "; longer is better"
	}
	return text
}
