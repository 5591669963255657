package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8/cwriter"

	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/snapshotter"
)

// show writes a status that the daemon gave.
type show func(body []byte) error

// watch shows the status at each interval until ctx is done, which is no error.
func watch(ctx context.Context, interval time.Duration, ask func(context.Context) ([]byte, error), show show) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		body, err := ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = show(body)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func showJSON(w io.Writer) show {
	return func(body []byte) error {
		_, err := fmt.Fprintf(w, "%s\n", bytes.TrimSpace(body))
		return err
	}
}

// newView shows the status as text: once, or again and again, on a terminal in the same
// place, and elsewhere as lines that begin with the time.
func newView(w io.Writer, watching bool) show {
	var before snapshot
	screen := cwriter.New(w)
	return func(body []byte) error {
		now := snapshot{at: time.Now()}
		if err := json.Unmarshal(body, &now.status); err != nil {
			return fmt.Errorf("status: %w", err)
		}
		lines := now.lines(&before)
		before = now
		if watching && screen.IsTerminal() {
			return redraw(screen, lines)
		}
		prefix := ""
		if watching {
			prefix = now.at.Format(time.DateTime) + "  "
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(w, prefix+line); err != nil {
				return err
			}
		}
		return nil
	}
}

// redraw writes lines over those that it wrote before. A line that does not fit would move
// the others.
func redraw(screen *cwriter.Writer, lines []string) error {
	width, height, err := screen.GetTermSize()
	if err != nil {
		return err
	}
	if most := max(2, height-1); len(lines) > most {
		lines = append(lines[:most-1:most-1], fmt.Sprintf("and %d lines more", len(lines)-most+1))
	}
	for _, line := range lines {
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width])
		}
		if _, err := screen.WriteString(line + "\n"); err != nil {
			return err
		}
	}
	return screen.Flush(len(lines))
}

// snapshot is the status of a moment.
type snapshot struct {
	status
	at time.Time
}

// lines are what is shown of it; before is the zero one at first.
func (s *snapshot) lines(before *snapshot) []string {
	var out bytes.Buffer
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("ipcs-snapshotter", "%s, pid %d, ready", s.Version, s.PID)
	row("peer ID", "%s", s.ID)
	for _, a := range s.Addrs {
		row("listens on", "%s", a)
	}
	if s.Kubo != nil {
		row("node", "%s", s.Kubo.line())
	}
	received := make(map[string]int64)
	for _, p := range before.Peers {
		received[p.ID] = int64(p.BytesIn)
	}
	for _, p := range s.Peers {
		row("peer", "%s %s, %s received%s", p.ID, p.state(), humanBytes(int64(p.BytesIn)), s.rate(before, int64(p.BytesIn), received[p.ID]))
	}
	for _, line := range s.Store.lines() {
		row("store", "%s", line)
	}
	if !s.Lazy.Connected {
		row("lazy files", "not served: %s", errRelay)
	} else if s.Lazy.Unanswered > 0 {
		row("lazy files", "%d requests wait", s.Lazy.Unanswered)
	}
	if s.Lazy.BrokenContainers > 0 {
		row("lazy files", "%d containers have lost their mount: what they have not read is being fetched; start them again", s.Lazy.BrokenContainers)
	}
	if s.Lazy.Connected && !s.Lazy.RelaySpare {
		row("lazy files", "%s", noSpare)
	}
	if s.Lazy.RelayRestarts > 0 {
		row("lazy files", "the process that holds the mount has died %d times, without loss", s.Lazy.RelayRestarts)
	}
	row("fetched", "%d files, %s since the start%s", s.Fetch.Files, humanBytes(s.Fetch.Bytes), s.rate(before, s.Fetch.Bytes, before.Fetch.Bytes))
	s.chainLines(before, row)
	_ = tw.Flush() // a buffer takes everything
	return strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
}

func (s *snapshot) chainLines(before *snapshot, row func(name, format string, args ...any)) {
	local, from := make(map[string]int64), make(map[string]int64)
	for _, c := range before.Chains {
		local[c.ID] = c.LocalBytes
		for _, p := range c.Peers {
			from[c.ID+p.ID] = p.Bytes
		}
	}
	for _, c := range s.Chains {
		name, id := "chain", shortID(c.ID)
		if c.Image != "" {
			name, id = "image", shortID(strings.TrimPrefix(c.Image, "sha256:"))
		}
		was, known := local[c.ID]
		if !known {
			was = c.LocalBytes
		}
		row(name, "%s %d layers, here %d of %d files, %s of %s, %s to come%s, %s", id, c.Layers, c.LocalFiles, c.Files,
			humanBytes(c.LocalBytes), humanBytes(c.Bytes), humanBytes(c.Bytes-c.LocalBytes), s.rate(before, c.LocalBytes, was), fillText(c.Fill))
		for _, p := range c.Peers {
			had := p.Bytes // of a chain that was not there before, it is not known how quickly they came
			if known {
				had = from[c.ID+p.ID]
			}
			row("", "  from %s: %s%s", p.ID, humanBytes(p.Bytes), s.rate(before, p.Bytes, had))
		}
	}
}

// rate is how quickly something grew since before; empty if there is none.
func (s *snapshot) rate(before *snapshot, now, was int64) string {
	passed := s.at.Sub(before.at).Seconds()
	if before.PID != s.PID || passed <= 0 { // the first, or another daemon's
		return ""
	}
	return fmt.Sprintf(", %s/s", humanBytes(int64(float64(max(0, now-was))/passed)))
}

func shortID(id string) string { return id[:min(len(id), 12)] }

// fillText says what a state means.
func fillText(state string) string {
	switch snapshotter.FillState(state) {
	case snapshotter.FillUnused:
		return "no container uses it"
	case snapshotter.FillOpening:
		return "indexes are coming"
	case snapshotter.FillProfile:
		return "profile is coming"
	case snapshotter.FillAll:
		return "filling"
	case snapshotter.FillRetry:
		return "waiting to try again"
	case snapshotter.FillNone:
		return "files come when they are read"
	case snapshotter.FillDone:
		return "filled"
	default:
		return state
	}
}

func (p peerStatus) state() string {
	switch {
	case p.Banned:
		return "refused for wrong bytes"
	case p.Connected && p.Found != "" && p.Found != string(embedded.FoundConfigured):
		return "connected (" + p.Found + ")"
	case p.Connected:
		return "connected"
	default:
		return "not connected"
	}
}
