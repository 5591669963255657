package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// A loss is a figure of ours that another system's beats beyond noise.
type loss struct {
	ours, other result.Figure
	ratio       float64 // of ours to the other
}

// losses writes where ipcs is not the best, and what was found about why.
func (d *document) losses() {
	d.printf("## Where ipcs loses\n\nEvery figure of ipcs that is worse than that of the best other system, the base among " +
		"them: in the median by more than 3 %% (10 %% with fewer than four rounds, 5 %% with one run), and in all rounds " +
		"or, with five or more, in so many that a one-sided sign test finds it (p ≤ 0.05: 5 of 5, 7 of 8, 9 of 11).\n\n")
	var none []string
	for _, v := range d.views {
		losses, note := v.losses(), strings.TrimSpace(d.in.Notes[v.Name])
		if len(losses) == 0 && note == "" {
			none = append(none, v.Title)
			continue
		}
		d.printf("### Where it loses: %s\n\n", v.Title)
		if note != "" {
			d.printf("%s\n\n", note)
		}
		var main, others []loss
		for _, l := range losses {
			if slices.Contains(v.Main, l.ours.Metric) {
				main = append(main, l)
			} else {
				others = append(others, l)
			}
		}
		d.lossTable(main)
		if len(others) > 0 {
			d.printf("<details><summary>Other metrics (%d)</summary>\n\n", len(others))
			d.lossTable(others)
			d.printf("</details>\n\n")
		}
	}
	if len(none) > 0 {
		d.printf("Nowhere: %s.\n\n", strings.Join(none, ", "))
	}
}

func (d *document) lossTable(losses []loss) {
	if len(losses) == 0 {
		return
	}
	var rows [][]string
	for _, l := range losses {
		rows = append(rows, []string{
			l.ours.Case, l.ours.Link, l.ours.Metric, l.ours.System, result.Format(l.ours.Median, l.ours.Unit),
			fmt.Sprintf("%s (%s)", result.Format(l.other.Median, l.other.Unit), l.other.System), result.FormatRatio(l.ratio),
		})
	}
	d.rows([]string{"case", "link", "metric", "system", "", "best other", "ratio"}, rows)
}

// losses returns the losses of a scenario, the largest first.
func (v *view) losses() []loss {
	var losses []loss
	for _, f := range v.report.Figures {
		if !ours(f.System) {
			continue
		}
		other, ok := v.best(f.Case, f.Link, f.Metric, func(s string) bool { return !ours(s) })
		if !ok {
			continue
		}
		if ratio, loses := f.Loses(other); loses {
			losses = append(losses, loss{f, other, ratio})
		}
	}
	slices.SortStableFunc(losses, func(a, b loss) int { return cmp.Compare(b.badness(), a.badness()) })
	return losses
}

// badness is how many times worse it is, whichever way the metric goes.
func (l loss) badness() float64 {
	if l.ours.Better == result.Lower || l.ratio == 0 {
		return l.ratio
	}
	return 1 / l.ratio
}
