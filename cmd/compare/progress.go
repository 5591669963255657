package main

import (
	"io"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hinshun/ipcs/internal/command"
	"github.com/hinshun/ipcs/internal/compare"
)

// A progress shows what a comparison does. Close ends it.
type progress interface {
	compare.Progress
	Close()
}

// newProgress returns bars for a terminal, and else lines.
func newProgress(w io.Writer, quiet bool) progress {
	if !quiet && command.IsTerminal(w) {
		return bars{command.NewBars(w)}
	}
	return &lines{command.NewLines(w), quiet}
}

func size(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// lines writes one line when an image is begun, and one when it is done.
type lines struct {
	*command.Lines
	quiet bool // notes only
}

// Image implements compare.Progress.
func (l *lines) Image(ref string, bytes int64) compare.ImageProgress {
	ref = compare.Clean(ref)
	if !l.quiet {
		l.Printf("%s: %s", ref, size(bytes))
	}
	return &imageLines{l, ref, time.Now()}
}

type imageLines struct {
	lines *lines
	ref   string
	start time.Time
}

func (l *imageLines) Read(int64)   {}
func (l *imageLines) Failed(error) {} // the end says it

func (l *imageLines) Done(cached bool) {
	switch {
	case l.lines.quiet:
	case cached:
		l.lines.Printf("%s: known", l.ref)
	default:
		l.lines.Printf("%s: done after %.1f s", l.ref, time.Since(l.start).Seconds())
	}
}

// bars draws a bar for each image.
type bars struct{ command.Bars }

// Close waits until the bars are drawn for the last time: those of images that were not done are given up.
func (b bars) Close() { b.Shutdown() }

// Image implements compare.Progress.
func (b bars) Image(ref string, bytes int64) compare.ImageProgress {
	return imageBar{command.NewBar(b.Progress, ending(compare.Clean(ref), 50), bytes, size)}
}

// ending is the end of what is too long: names differ there.
func ending(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return "…" + string(r[len(r)-width+1:])
}

// An imageBar shows how much of an image was read, and then what became of it.
type imageBar struct{ *command.Bar }

// Done implements compare.ImageProgress.
func (b imageBar) Done(cached bool) {
	if cached {
		b.Ended("known")
		return
	}
	b.Ended("done")
}
