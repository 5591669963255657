package command

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"golang.org/x/term"
)

// IsTerminal says whether what is written to w is seen on a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Lines writes what a command does as lines, for logs. Its methods may be called by several goroutines.
type Lines struct {
	mu sync.Mutex
	w  io.Writer
}

// NewLines returns Lines that are written to w.
func NewLines(w io.Writer) *Lines { return &Lines{w: w} }

// Printf writes a line.
func (l *Lines) Printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// There is nobody to tell that standard error cannot be written.
	_, _ = fmt.Fprintf(l.w, format+"\n", args...)
}

// Note writes what the user should know.
func (l *Lines) Note(text string) { l.Printf("note: %s", Printable(text)) }

// Close does nothing: each line was written.
func (l *Lines) Close() {}

// Bars draws what a command does as bars on a terminal.
type Bars struct{ *mpb.Progress }

// NewBars returns Bars that are drawn on w.
func NewBars(w io.Writer) Bars { return Bars{mpb.New(mpb.WithOutput(w))} }

// Note writes, above the bars, what the user should know.
func (b Bars) Note(text string) {
	_, _ = fmt.Fprintln(b.Progress, "note:", Printable(text)) // as for Lines
}
