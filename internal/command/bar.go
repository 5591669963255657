package command

import (
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A Bar shows how much of something was read, and then what became of it.
type Bar struct {
	*mpb.Bar
	size func(int64) string
	mu   sync.Mutex
	text string
}

// NewBar adds a bar. It ends with Done or Failed, and not when all was read.
func NewBar(p *mpb.Progress, name string, total int64, size func(int64) string) *Bar {
	b := &Bar{size: size}
	// A bar that starts with a total ends by itself when it is reached.
	b.Bar = p.AddBar(0, mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)), mpb.AppendDecorators(decor.Any(b.right)))
	b.SetTotal(total, false)
	return b
}

func (b *Bar) right(s decor.Statistics) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text != "" {
		return b.text
	}
	return b.size(s.Current) + " of " + b.size(s.Total)
}

func (b *Bar) end(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = text
}

// Read counts what was read.
func (b *Bar) Read(n int64) { b.IncrInt64(n) }

// Ended completes the bar, and says what became of it.
func (b *Bar) Ended(text string) {
	b.end(text)
	b.SetTotal(-1, true)
}

// Failed gives the bar up. What went wrong the end of the program says.
func (b *Bar) Failed(error) {
	b.end("failed")
	b.Abort(false)
}
