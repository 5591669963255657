package report

import (
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// missing writes what failed, what was not measured, and what cannot be yet.
func (d *document) missing() {
	d.printf("## Not measured\n\n")
	some := false
	for _, failed := range []bool{true, false} {
		var order []string
		where := map[string][]string{} // by what and why
		for _, v := range d.views {
			for _, m := range v.report.Missing {
				if m.Failed != failed {
					continue
				}
				line := described(m)
				order = append(order, line)
				where[line] = append(where[line], v.Title)
			}
		}
		for _, line := range unique(order) {
			some = true
			d.printf("- %s (%s)\n", line, strings.Join(unique(where[line]), ", "))
		}
	}
	for _, s := range d.in.Sections {
		if !slices.ContainsFunc(d.views, func(v *view) bool { return v.Name == s.Name }) {
			some = true
			d.printf("- %s: not measured in these results; `make bench ONLY=%s` does\n", s.Title, s.Name)
		}
	}
	if !some {
		d.printf("Nothing: all scenarios ran with all systems.\n")
	}
	d.printf("\n")
	if len(d.in.Unbuilt) == 0 {
		return
	}
	d.printf("### Not built yet\n\nScenarios that come with what they are about:\n\n")
	for _, u := range d.in.Unbuilt {
		d.printf("- %s: %s\n", u.Title, u.Reason)
	}
	d.printf("\n")
}

// described says what is missing and why. Of a failure, whose reason may end with logs,
// the first line is enough here; the results have it all.
func described(m result.Missing) string {
	var what []string
	for _, s := range []string{m.System, m.Case, m.Link} {
		if s != "" {
			what = append(what, s)
		}
	}
	reason := m.Reason
	if m.Failed {
		what = append(what, "**failed**")
		reason, _, _ = strings.Cut(reason, "\n")
		reason = "`" + strings.ReplaceAll(reason, "`", "'") + "`"
	}
	if len(what) == 0 {
		return reason
	}
	return strings.Join(what, ", ") + ": " + reason
}
