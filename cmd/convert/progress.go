package main

import (
	"fmt"
	"io"
	"time"

	"github.com/hinshun/ipcs/internal/command"
	"github.com/hinshun/ipcs/internal/convert"
)

// A progress shows what a conversion does. Close ends it.
type progress interface {
	convert.Progress
	Close()
}

// newProgress returns bars for a terminal, and else lines.
func newProgress(w io.Writer, quiet bool) progress {
	if !quiet && command.IsTerminal(w) {
		return bars{command.NewBars(w)}
	}
	return &lines{command.NewLines(w), quiet}
}

// shortDigest is enough of a digest to find it again.
func shortDigest(l convert.LayerInfo) string {
	what := "layer"
	if l.Seed {
		what = "seed of layer"
	}
	return fmt.Sprintf("%s %d/%d %.19s", what, l.Number, l.Total, l.Digest)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// summary says what became of a layer.
func summary(r convert.LayerReport) string {
	if r.Seed != "" {
		return mebibytes(r.SeedBytes)
	}
	if r.Reused {
		return fmt.Sprintf("%d files, converted before", r.Files)
	}
	return fmt.Sprintf("%d files, %s", r.Files, mebibytes(r.Bytes))
}

// lines writes one line when a layer starts and one when it is done.
type lines struct {
	*command.Lines
	quiet bool // notes only
}

func (l *lines) Layer(info convert.LayerInfo) convert.LayerProgress {
	layer := &layerLines{lines: l, name: shortDigest(info), size: info.Size, start: time.Now()}
	if !l.quiet {
		l.Printf("%s: %s", layer.name, mebibytes(info.Size))
	}
	return layer
}

type layerLines struct {
	lines *lines
	name  string
	size  int64
	start time.Time
}

func (l *layerLines) Read(int64)   {}
func (l *layerLines) Failed(error) {} // the program's last line says it

func (l *layerLines) Done(r convert.LayerReport) {
	if l.lines.quiet {
		return
	}
	d := time.Since(l.start)
	if r.Reused || r.Seed != "" {
		l.lines.Printf("%s: done, %s", l.name, summary(r))
		return
	}
	rate := mebibytes(int64(float64(r.Bytes) / max(d.Seconds(), 1e-3)))
	l.lines.Printf("%s: done, %s in %.1f s (%s/s)", l.name, summary(r), d.Seconds(), rate)
}

// bars draws a bar for each layer under way.
type bars struct{ command.Bars }

// Close waits until the bars are drawn for the last time; all were completed or aborted.
func (b bars) Close() { b.Wait() }

func (b bars) Layer(info convert.LayerInfo) convert.LayerProgress {
	return layerBar{command.NewBar(b.Progress, shortDigest(info), info.Size, mebibytes)}
}

// A layerBar shows how much of a blob was read, and then what became of it.
type layerBar struct{ *command.Bar }

func (b layerBar) Done(r convert.LayerReport) { b.Ended(summary(r)) }
