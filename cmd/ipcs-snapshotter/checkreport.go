package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hinshun/ipcs/internal/objects"
)

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
