package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// section writes one scenario.
func (d *document) section(v *view) {
	d.printf("## %s\n\n%s\n\n", v.Title, v.About)
	r := v.report
	d.printf("`%s`; commit %s, %s, %s; [%s.json](%s/%s.json)\n\n", r.Command, r.Commit, r.Started.Format(time.DateOnly),
		(time.Duration(r.Seconds) * time.Second).String(), r.Scenario, d.in.Results, r.Scenario)
	d.cases(v)
	if len(v.cases) == 1 {
		d.single(v)
		return
	}
	for _, m := range v.Main {
		metric := v.metric(m)
		d.printf("### %s: %s%s\n\n", v.Title, m, direction(metric))
		for _, link := range v.links(m) {
			d.charts(v, metric, link)
			d.byCase(v, metric, link)
		}
	}
	for _, m := range v.metrics {
		if slices.Contains(v.Main, m) {
			continue
		}
		metric := v.metric(m)
		d.printf("<details><summary>%s%s</summary>\n\n", m, direction(metric))
		for _, link := range v.links(m) {
			d.byCase(v, metric, link)
		}
		d.printf("</details>\n\n")
	}
}

// direction says which way a metric is better.
func direction(m result.Metric) string {
	if m.Better == "" {
		return ""
	}
	return fmt.Sprintf(" (%s is better)", m.Better)
}

// cases says what was run.
func (d *document) cases(v *view) {
	var rows [][]string
	for _, c := range v.Section.Cases {
		if c.Command == "" && c.Image == "" || !slices.Contains(v.cases, c.Name) {
			continue
		}
		image := v.image(c.Image)
		if c.Before != "" {
			image += " after " + v.image(c.Before)
		}
		rows = append(rows, []string{c.Name, image, code(c.Command)})
	}
	if len(rows) == 0 {
		return
	}
	d.printf("<details><summary>The cases</summary>\n\n")
	d.rows([]string{"case", "image (compressed layers)", "command"}, rows)
	d.printf("</details>\n\n")
}

// image writes which image it is and how large its layers are, in each of the forms in
// which it was measured: NAME+zstd is NAME in another compression.
func (v *view) image(name string) string {
	var sizes []string
	for _, other := range slices.Sorted(maps.Keys(v.report.Images)) {
		form, ok := strings.CutPrefix(other, name)
		if !ok || form != "" && form[0] != '+' {
			continue
		}
		size := result.Format(float64(v.report.Images[other].Bytes), "B")
		sizes = append(sizes, strings.TrimPrefix(strings.TrimSpace(form+" "+size), "+"))
	}
	if name == "" || len(sizes) == 0 {
		return code(name)
	}
	return code(name) + " (" + strings.Join(sizes, ", ") + ")"
}

// code writes a text as code in a table's cell.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`) + "`"
}

// charts draws a metric on a link: lines for each family of cases that grow, and bars for
// the others.
func (d *document) charts(v *view, metric result.Metric, link string) {
	families, rest := v.families()
	name := slug(strings.Join([]string{v.Name, metric.Name, strings.ReplaceAll(link, "/", "-")}, "-"))
	title := func(what string) string {
		text := v.Title + what + ": " + metric.Name
		if link != "" {
			text += ", " + link
		}
		return text
	}
	for _, f := range families {
		c := v.lines(metric, link, f)
		if len(c.series) == 0 {
			continue
		}
		file, what := strings.Trim(name, "-"), ""
		if len(families)+len(rest) > 1 { // there are others to tell it from
			file, what = file+"-"+slug(f.name), " ("+f.name+")"
		}
		c.title = title(what)
		d.chart(file, c.title, c.svg())
	}
	if c := v.bars(metric, link, rest); len(c.groups) > 0 {
		c.title = title("")
		d.chart(strings.Trim(name, "-"), c.title, c.svg())
	}
}

// A family is cases that are sizes of the same thing.
type family struct {
	name  string
	cases []string
}

// families are told by what comes before the last hyphen in the names of cases. Less
// than three cases make no line, and are among the rest.
func (v *view) families() (families []family, rest []string) {
	byName := map[string]*family{}
	var names []string
	for _, c := range v.cases {
		if v.count(c) == 0 {
			rest = append(rest, c)
			continue
		}
		name := c[:max(0, strings.LastIndex(c, "-"))]
		if byName[name] == nil {
			byName[name] = &family{name: name}
			names = append(names, name)
		}
		byName[name].cases = append(byName[name].cases, c)
	}
	for _, name := range names {
		if f := byName[name]; len(f.cases) >= 3 {
			families = append(families, *f)
		} else {
			rest = append(rest, f.cases...)
		}
	}
	return families, ordered(rest, v.cases)[:len(rest)]
}
