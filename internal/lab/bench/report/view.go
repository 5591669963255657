package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// A view is a report with its section, arranged for tables.
type view struct {
	Section
	report  *result.Report
	figures map[string]result.Figure // by Key
	systems []string                 // that have figures, the base first
	cases   []string
	metrics []string
}

func newView(s Section, r *result.Report) *view {
	v := &view{Section: s, report: r, figures: map[string]result.Figure{}}
	var recorded, cases []string
	for _, f := range r.Figures {
		v.figures[f.Key()] = f
		recorded = append(recorded, f.System)
		cases = append(cases, f.Case)
		v.metrics = append(v.metrics, f.Metric)
	}
	v.metrics = unique(v.metrics)
	v.systems = ordered(recorded, append([]string{r.Base}, s.Systems...))
	var names []string
	for _, c := range s.Cases {
		names = append(names, c.Name)
	}
	v.cases = ordered(cases, names)
	v.Main = slices.DeleteFunc(slices.Clone(v.Main), func(m string) bool { return !slices.Contains(v.metrics, m) })
	if len(v.Main) == 0 && len(v.metrics) > 0 {
		v.Main = v.metrics[:1]
	}
	return v
}

// unique leaves the first of each.
func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// ordered returns what is in list, in the order of wanted, and what that lacks after it.
func ordered(list, wanted []string) []string {
	out := slices.DeleteFunc(unique(wanted), func(s string) bool { return !slices.Contains(list, s) })
	return unique(append(out, list...))
}

// figure returns the figure of a cell.
func (v *view) figure(c, link, system, metric string) (result.Figure, bool) {
	f, ok := v.figures[result.Figure{Case: c, Link: link, System: system, Metric: metric}.Key()]
	return f, ok
}

// links returns the links on which a metric was measured; "" is one.
func (v *view) links(metric string) []string {
	var links []string
	for _, f := range v.report.Figures {
		if f.Metric == metric {
			links = append(links, f.Link)
		}
	}
	return unique(links)
}

// metric returns a metric as its figures have it.
func (v *view) metric(name string) result.Metric {
	for _, f := range v.report.Figures {
		if f.Metric == name {
			return result.Metric{Name: name, Unit: f.Unit, Better: f.Better}
		}
	}
	return result.Metric{Name: name}
}

// failed reports whether a measurement was tried and failed.
func (v *view) failed(c, link, system string) bool {
	return slices.ContainsFunc(v.report.Missing, func(m result.Missing) bool {
		return m.Failed && (m.Case == "" || m.Case == c) && (m.Link == "" || m.Link == link) && (m.System == "" || m.System == system)
	})
}

// count returns what grows, as of a case; 0 where nothing does.
func (v *view) count(name string) int {
	for _, c := range v.Section.Cases {
		if c.Name == name {
			return c.Count
		}
	}
	return 0
}

// ours reports whether a system is of this project, in which convert takes part as such
// where it is measured against tar.
func ours(system string) bool {
	return system == "ipcs" || strings.HasPrefix(system, "ipcs-") || system == "convert"
}

// rounds returns in how many rounds a row's systems were measured, at most.
func (v *view) rounds(c, link, metric string) int {
	n := 0
	for _, s := range v.systems {
		if f, ok := v.figure(c, link, s, metric); ok {
			n = max(n, len(f.Runs))
		}
	}
	return n
}

// mark says what is wanting in a figure: runs, or an end without a failure. "" for nothing.
func (v *view) mark(f result.Figure) string {
	mark := ""
	if len(f.Runs) < v.rounds(f.Case, f.Link, f.Metric) {
		mark = fmt.Sprintf(" n=%d", len(f.Runs))
	}
	if v.failed(f.Case, f.Link, f.System) {
		mark += " †"
	}
	return mark
}

// wins reports whether a figure is the best of its cell's systems, or as good, and nothing
// is wanting in it. Where it is in the best one none wins: what a system did before it
// failed is not forgotten in favour of others.
func (v *view) wins(f result.Figure) bool {
	best, ok := v.best(f.Case, f.Link, f.Metric, func(string) bool { return true })
	return ok && best.Median == f.Median && v.mark(f) == ""
}

// best returns the best figure of a cell's systems, of those that are wanted.
func (v *view) best(c, link, metric string, wanted func(system string) bool) (best result.Figure, ok bool) {
	for _, s := range v.systems {
		f, is := v.figure(c, link, s, metric)
		if !is || !wanted(s) || f.Better == "" {
			continue
		}
		if !ok || (f.Better == result.Lower) == (f.Median < best.Median) && f.Median != best.Median {
			best, ok = f, true
		}
	}
	return best, ok
}
