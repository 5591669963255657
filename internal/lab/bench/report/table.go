package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// rows writes a table.
func (d *document) rows(head []string, rows [][]string) {
	d.printf("| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		d.printf("| %s |\n", strings.Join(r, " | "))
	}
	d.printf("\n")
}

// A row is what stands for one in a table of figures.
type row struct{ label, name, metric string }

// byCase writes the table of a metric on a link: cases are its rows.
func (d *document) byCase(v *view, metric result.Metric, link string) {
	var rows []row
	for _, c := range v.cases {
		rows = append(rows, row{label: c, name: c, metric: metric.Name})
	}
	d.figures(v, link, rows)
}

// single writes a scenario of one case: metrics are the rows of its tables.
func (d *document) single(v *view) {
	var links []string
	for _, m := range v.metrics {
		links = append(links, v.links(m)...)
	}
	for _, link := range unique(links) {
		for _, m := range v.Main {
			d.charts(v, v.metric(m), link)
		}
		var rows []row
		for _, m := range ordered(v.metrics, v.Main) {
			rows = append(rows, row{label: m + direction(v.metric(m)), name: v.cases[0], metric: m})
		}
		d.figures(v, link, rows)
	}
}

// figures writes a table with systems as columns, leaving out rows and columns in which
// there is nothing.
func (d *document) figures(v *view, link string, rows []row) {
	var systems []string
	for _, s := range v.systems {
		if slices.ContainsFunc(rows, func(r row) bool { _, ok := v.figure(r.name, link, s, r.metric); return ok }) {
			systems = append(systems, s)
		}
	}
	var lines [][]string
	for _, r := range rows {
		runs := v.rounds(r.name, link, r.metric)
		cells := []string{r.label, ""}
		for _, s := range systems {
			f, ok := v.figure(r.name, link, s, r.metric)
			switch {
			case ok:
				cells = append(cells, v.cell(f, len(systems) > 1))
			case v.failed(r.name, link, s):
				cells = append(cells, "failed")
			default:
				cells = append(cells, "–")
			}
		}
		if runs > 0 {
			cells[1] = fmt.Sprint(runs)
			lines = append(lines, cells)
		}
	}
	head := append([]string{link, "runs"}, systems...)
	d.rows(head, lines)
}

// cell writes a figure: the median, its ratio, its spread and what is wanting in it. The
// best of a row is bold.
func (v *view) cell(f result.Figure, many bool) string {
	text := strings.ReplaceAll(result.Format(f.Median, f.Unit), " ", "\u00a0")
	if many && v.wins(f) {
		text = "**" + text + "**"
	}
	if f.Ratio != nil {
		text += " " + result.FormatRatio(*f.Ratio)
	}
	if len(f.Runs) > 1 {
		text += " " + strings.ReplaceAll(result.FormatSpread(f.Spread), " ", "\u00a0")
	}
	return text + v.mark(f)
}
