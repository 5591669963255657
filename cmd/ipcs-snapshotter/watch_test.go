package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func statusBody(t *testing.T, local int64, chains int) []byte {
	t.Helper()
	s := status{Version: "v1", PID: 7, ID: "me", Peers: []peerStatus{{ID: "peer", Connected: true, BytesIn: uint64(local)}}}
	s.Lazy.Connected, s.Lazy.RelaySpare = true, true
	for i := range chains {
		s.Chains = append(s.Chains, chainStatus{
			ID: fmt.Sprint("chain", i), Image: "sha256:0123456789abcdef", Fill: "filling", Layers: 2,
			Files: 10, LocalFiles: 5, Bytes: 9e6, LocalBytes: local,
			Peers: []chainPeer{{"first", local / 2}, {"second", local / 4}},
		})
	}
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestViewAsText(t *testing.T) {
	var out bytes.Buffer
	if err := newView(&out, false)(statusBody(t, 2e6, 1)); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "image") || !strings.Contains(got, "0123456789ab 2 layers, here 5 of 10 files, 2.0 MB of 9.0 MB, 7.0 MB to come, filling\n") || strings.Contains(got, "/s") {
		t.Errorf("once:\n%s", got)
	}

	out.Reset()
	view := newView(&out, true)
	for _, local := range []int64{2e6, 3e6, 1e6} { // the last as after evictions
		if err := view(statusBody(t, local, 1)); err != nil {
			t.Fatal(err)
		}
	}
	var rates []string
	for line := range strings.Lines(out.String()) {
		if _, err := time.Parse(time.DateTime, line[:len(time.DateTime)]); err != nil {
			t.Errorf("a line without the time: %s", line)
		}
		if strings.Contains(line, "layers") {
			rates = append(rates, line)
		}
	}
	if got := out.String(); strings.Count(got, "  from first: 1.0 MB\n") != 1 || strings.Count(got, "  from second: 750.0 kB, ") != 1 || !strings.Contains(got, "  from first: 500.0 kB, 0 B/s\n") {
		t.Errorf("peers of the image, again and again:\n%s", got)
	}
	if len(rates) != 3 || strings.Contains(rates[0], "/s") || !strings.Contains(rates[1], "B/s, filling") || !strings.Contains(rates[2], ", 0 B/s, filling") {
		t.Errorf("again and again:\n%s", out.String())
	}
}

// terminal opens one of 40 columns and 12 lines.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 40})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestViewOnTerminal shows more than the terminal has room for, in one place.
func TestViewOnTerminal(t *testing.T) {
	master, slave := terminal(t)
	view := newView(slave, true)
	read := func() string {
		buf := make([]byte, 64<<10)
		n, err := master.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	for i := range 2 {
		if err := view(statusBody(t, 2e6, 30)); err != nil {
			t.Fatal(err)
		}
		got := read()
		if again := strings.HasPrefix(got, "\x1b[11A\x1b[J"); again != (i > 0) {
			t.Errorf("view %d begins with %q", i, got[:min(len(got), 20)])
		}
		lines := strings.Split(strings.TrimSuffix(got, "\r\n"), "\r\n")
		if len(lines) != 11 || !strings.HasPrefix(lines[10], "and ") {
			t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
		for _, line := range lines[1:] {
			if len([]rune(line)) > 40 {
				t.Errorf("a line is too long: %q", line)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	shown := 0
	answer := func(context.Context) ([]byte, error) { return []byte("{}\n"), nil }
	var out bytes.Buffer
	asJSON := showJSON(&out)
	err := watch(ctx, time.Millisecond, answer, func(body []byte) error {
		if shown++; shown == 3 {
			cancel()
		}
		return asJSON(body)
	})
	if err != nil || out.String() != "{}\n{}\n{}\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	gone := errors.New("gone")
	if err := watch(t.Context(), time.Hour, func(context.Context) ([]byte, error) { return nil, gone }, asJSON); !errors.Is(err, gone) {
		t.Errorf("without a daemon: %v", err)
	}
}
