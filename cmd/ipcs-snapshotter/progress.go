package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/hinshun/ipcs/internal/command"
)

// progressInterval is how often a line is written where there is no terminal.
const progressInterval = 10 * time.Second

// far is how far something is. What counts says is for where there is no bar.
type far struct {
	bytes, all int64
	counts     string
}

// A progress shows how far something is.
type progress interface {
	show(far)
	close()
}

// newProgress returns a bar for a terminal, and else lines, or nothing.
func newProgress(w io.Writer, name string, quiet bool) progress {
	if quiet {
		return quietProgress{}
	}
	if command.IsTerminal(w) {
		p := &barProgress{progress: mpb.New(mpb.WithOutput(w))}
		p.bar = p.progress.AddBar(0, mpb.PrependDecorators(decor.Name(name)),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
				return humanBytes(s.Current) + " of " + humanBytes(s.Total)
			})))
		return p
	}
	return &lineProgress{w: w, last: time.Now()}
}

type quietProgress struct{}

func (quietProgress) show(far) {}
func (quietProgress) close()   {}

type barProgress struct {
	progress *mpb.Progress
	bar      *mpb.Bar
}

func (b *barProgress) show(p far) {
	b.bar.SetTotal(max(p.all, p.bytes), false)
	b.bar.SetCurrent(p.bytes)
}

func (b *barProgress) close() {
	b.bar.Abort(true)
	b.progress.Wait()
}

type lineProgress struct {
	w    io.Writer
	last time.Time
}

func (l *lineProgress) show(p far) {
	if time.Since(l.last) < progressInterval {
		return
	}
	l.last = time.Now()
	// There is nobody to tell that standard error cannot be written.
	_, _ = fmt.Fprintf(l.w, "%s, %s of %s\n", p.counts, humanBytes(p.bytes), humanBytes(p.all))
}

func (*lineProgress) close() {}
