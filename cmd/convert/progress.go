package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/hinshun/ipcs/internal/convert"
)

// A progress shows what a conversion does. Close ends it.
type progress interface {
	convert.Progress
	Close()
}

// newProgress returns bars for a terminal, and else lines.
func newProgress(w io.Writer, quiet bool) progress {
	if f, ok := w.(*os.File); ok && !quiet && term.IsTerminal(int(f.Fd())) {
		return bars{mpb.New(mpb.WithOutput(w))}
	}
	return &lines{w: w, quiet: quiet}
}

// printable is text that cannot steer a terminal: messages hold what images say.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
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
	mu    sync.Mutex
	w     io.Writer
	quiet bool // notes only
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// There is nobody to tell that standard error cannot be written.
	_, _ = fmt.Fprintf(l.w, format+"\n", args...)
}

func (l *lines) Note(text string) { l.printf("note: %s", printable(text)) }

func (l *lines) Close() {}

func (l *lines) Layer(info convert.LayerInfo) convert.LayerProgress {
	layer := &layerLines{lines: l, name: shortDigest(info), size: info.Size, start: time.Now()}
	if !l.quiet {
		l.printf("%s: %s", layer.name, mebibytes(info.Size))
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
		l.lines.printf("%s: done, %s", l.name, summary(r))
		return
	}
	rate := mebibytes(int64(float64(r.Bytes) / max(d.Seconds(), 1e-3)))
	l.lines.printf("%s: done, %s in %.1f s (%s/s)", l.name, summary(r), d.Seconds(), rate)
}

// bars draws a bar for each layer under way.
type bars struct{ *mpb.Progress }

func (b bars) Note(text string) {
	// Written above the bars. As for lines, there is nobody to tell of an error.
	_, _ = fmt.Fprintln(b.Progress, "note:", printable(text))
}

// Close waits until the bars are drawn for the last time; all were completed or aborted.
func (b bars) Close() { b.Wait() }

func (b bars) Layer(info convert.LayerInfo) convert.LayerProgress {
	bar := &layerBar{}
	// A bar that starts with a total ends by itself when it is reached; this one ends
	// when the layer is done.
	bar.Bar = b.AddBar(0,
		mpb.PrependDecorators(decor.Name(shortDigest(info), decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.Any(func(s decor.Statistics) string { return bar.right(s) }),
		),
	)
	bar.SetTotal(info.Size, false)
	return bar
}

// A layerBar shows how much of a blob was read, and then what became of it.
type layerBar struct {
	*mpb.Bar
	mu   sync.Mutex
	text string
}

func (b *layerBar) right(s decor.Statistics) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text != "" {
		return b.text
	}
	return mebibytes(s.Current) + " of " + mebibytes(s.Total)
}

func (b *layerBar) end(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = text
}

func (b *layerBar) Read(n int64) { b.IncrInt64(n) }

func (b *layerBar) Done(r convert.LayerReport) {
	b.end(summary(r))
	b.SetTotal(-1, true)
}

func (b *layerBar) Failed(error) {
	b.end("failed")
	b.Abort(false)
}
