package result

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes a comparison for a terminal: what fails, what is worse and what is better
// beyond noise, and how much else there is; with all, that too.
func (c *Comparison) Text(w io.Writer, all bool) error {
	out := bufio.NewWriter(w)
	for _, n := range c.Notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
	tried(out, "FAILED, and did not before", c.Failed)
	tried(out, "Failed before and works now", c.Works)
	verdicts := map[Verdict][]Line{}
	for _, l := range c.Lines {
		verdicts[l.Verdict] = append(verdicts[l.Verdict], l)
	}
	table(out, "Worse", verdicts[Worse])
	table(out, "Better", verdicts[Better])
	table(out, "Changed, for better or worse", verdicts[Changed])
	if all {
		table(out, "Not beyond noise", verdicts[Same])
		table(out, "Only in the old run", c.OnlyOld)
		table(out, "Only in the new run", c.OnlyNew)
	}
	fmt.Fprintf(out, "\n%d figures compared: %d worse, %d better, %d changed, %d not beyond noise\n", len(c.Lines),
		len(verdicts[Worse]), len(verdicts[Better]), len(verdicts[Changed]), len(verdicts[Same]))
	if c.Single > 0 {
		fmt.Fprintf(out, "%d of these not judged: one run on one side says too little\n", c.Single)
	}
	if len(c.OnlyOld)+len(c.OnlyNew) > 0 {
		fmt.Fprintf(out, "%d only in the old run, %d only in the new one\n", len(c.OnlyOld), len(c.OnlyNew))
	}
	if c.Incomparable > 0 {
		fmt.Fprintf(out, "%d without ratios not compared, as they are of different machines\n", c.Incomparable)
	}
	return out.Flush()
}

// tried lists failures; only the first line of the reason, which may hold logs.
func tried(out io.Writer, title string, list []Tried) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s:\n", title)
	for _, t := range list {
		reason, _, _ := strings.Cut(t.Reason, "\n")
		fmt.Fprintf(out, "  %s: %s\n", strings.Join(strings.Fields(strings.Join([]string{t.Scenario, t.Case, t.Link, t.System}, " ")), " "), reason)
	}
}

// table lists lines, one each.
func table(out io.Writer, title string, lines []Line) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s:\n", title)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  scenario\tcase\tlink\tsystem\tmetric\told\tnew\tchange\tp, n")
	for _, l := range lines {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Scenario, l.Case, dash(l.Link), l.System, l.Metric,
			l.value(l.Old), l.value(l.New), l.change(), l.certainty())
	}
	t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// value writes one side, ratios with × and absolute values with their unit.
func (l Line) value(s *Sample) string {
	if s == nil {
		return "-"
	}
	text := Format(s.Median, l.Unit)
	if l.Ratio {
		text = FormatRatio(s.Median)
	}
	if s.N > 1 {
		text += " " + FormatSpread(s.Spread)
	}
	return text
}

func (l Line) change() string {
	if l.Change == nil {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", 100**l.Change)
}

func (l Line) certainty() string {
	if l.Old == nil || l.New == nil {
		return "-"
	}
	n := fmt.Sprintf("n=%d+%d", l.Old.N, l.New.N)
	if l.P == nil {
		return n
	}
	return fmt.Sprintf("p=%.3f %s", *l.P, n)
}
