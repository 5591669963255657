package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/hinshun/ipcs/internal/objects"
)

// progressInterval is how often a line is written where there is no terminal.
const progressInterval = 10 * time.Second

// A checkProgress shows how far a check is.
type checkProgress interface {
	show(objects.CheckProgress)
	close()
}

// newCheckProgress returns a bar for a terminal, and else lines, or nothing.
func newCheckProgress(w io.Writer, quiet bool) checkProgress {
	if quiet {
		return quietCheck{}
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p := &checkBar{progress: mpb.New(mpb.WithOutput(w))}
		p.bar = p.progress.AddBar(0, mpb.PrependDecorators(decor.Name("check")),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
				return humanBytes(s.Current) + " of " + humanBytes(s.Total)
			})))
		return p
	}
	return &checkLines{w: w, last: time.Now()}
}

type quietCheck struct{}

func (quietCheck) show(objects.CheckProgress) {}
func (quietCheck) close()                     {}

type checkBar struct {
	progress *mpb.Progress
	bar      *mpb.Bar
}

func (b *checkBar) show(p objects.CheckProgress) {
	b.bar.SetTotal(max(p.TotalBytes, p.Bytes), false)
	b.bar.SetCurrent(p.Bytes)
}

func (b *checkBar) close() {
	b.bar.Abort(true)
	b.progress.Wait()
}

type checkLines struct {
	w    io.Writer
	last time.Time
}

func (l *checkLines) show(p objects.CheckProgress) {
	if time.Since(l.last) < progressInterval {
		return
	}
	l.last = time.Now()
	// There is nobody to tell that standard error cannot be written.
	_, _ = fmt.Fprintf(l.w, "checked %d of %d objects, %s of %s\n", p.Objects, p.TotalObjects, humanBytes(p.Bytes), humanBytes(p.TotalBytes))
}

func (*checkLines) close() {}

// printReport says what was found, what became of it, and what to do.
func printReport(w io.Writer, r *objects.CheckReport) error {
	var b strings.Builder
	done := "removed"
	if r.DryRun {
		done = "left alone"
	}
	for _, d := range r.Damaged {
		fmt.Fprintf(&b, "damaged     %s (%s): %s\n", d.Name, humanBytes(d.Size), d.Reason)
	}
	for _, d := range r.Unreadable {
		fmt.Fprintf(&b, "unreadable  %s (%s), left alone: %s\n", d.Name, humanBytes(d.Size), d.Reason)
	}
	for _, count := range []struct {
		n    int64
		what string
	}{
		{int64(len(r.Damaged)), "damaged objects and blocks, " + done},
		{r.Dangling, "references to objects that are not there, " + done},
		{r.Unlisted, "leaves that could not be found in their objects, " + strings.Replace(done, "removed", "listed again", 1)},
		{r.Leftovers, "partial files that nobody writes, " + done},
		{r.Unremoved, "of all this could not be removed: see the log"},
	} {
		if count.n > 0 {
			fmt.Fprintf(&b, "%d %s\n", count.n, count.what)
		}
	}
	if len(r.Damaged) > 0 && !r.DryRun {
		b.WriteString("What was removed is fetched again when it is needed. Containers that have read it may go on to\nread the damaged file, which the kernel has bound: start them again.\n")
	}
	for _, l := range r.Lost {
		fmt.Fprintf(&b, "LOST: pin %q of %s lacks %d blocks: %s\n", l.Pin, l.Root, l.Blocks, strings.Join(l.Missing, " "))
	}
	if len(r.Lost) > 0 {
		b.WriteString("What is pinned may be nowhere else. Convert or commit it again, or get it from a node that has it.\n")
	}
	fmt.Fprintf(&b, "checked %d objects, %s, and %d blocks: ", r.Objects, humanBytes(r.Bytes), r.Blocks)
	switch {
	case !r.Wrong():
		b.WriteString("all are right\n")
	case r.Mended():
		b.WriteString("what was wrong is mended\n")
	default:
		b.WriteString("not all is right\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return errors.Join(errors.New("write the report"), err)
	}
	return nil
}
