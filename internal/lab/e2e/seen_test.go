package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// scrape returns the daemon's metrics, by name and labels.
func (w *world) scrape() map[string]float64 {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.daemon.Metrics+"/metrics", nil)
	w.must(err)
	resp, err := w.consume.HTTPClient().Do(req)
	w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	w.must(err)
	values := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			values[line[:at]], err = strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
			w.must(err)
		}
	}
	return values
}

// scraped waits for something of the metrics.
func (w *world) scraped(what string, done func(map[string]float64) bool) (values map[string]float64) {
	w.t.Helper()
	w.wait(func() bool {
		values = w.scrape()
		return done(values)
	}, func() string { return fmt.Sprintf("%s: %v", what, values) })
	return values
}

// TestSeen follows an image from its pull until all of it is here and read, and then another
// that shares files with it, in the metrics and in the status.
func TestSeen(t *testing.T) {
	first, second := labtest.Image(t, "small-base"), labtest.Image(t, "base")
	w := newWorld(t, "seen", 0)
	seen := w.consumer("seeing", lab.DaemonOptions{Fill: "on", Metrics: true})
	ref, other := w.convert(w.push(first)), w.convert(w.push(second))
	source, err := w.source.Status(t.Context())
	w.must(err)

	seen.pull(ref, "ipcs")
	if got := seen.scrape(); got["ipcs_saved_files_total"] != 0 || got["ipcs_layers"] == 0 {
		t.Errorf("after the pull: %v files saved, %v layers", got["ipcs_saved_files_total"], got["ipcs_layers"])
	}
	c := seen.start("c", ref)
	got := seen.scraped("all files come", func(v map[string]float64) bool { return v[`ipcs_images{fill="done"}`] == 1 })
	files := got[`ipcs_prefetched_files_total{by="fill"}`]
	for name, ok := range map[string]bool{
		"reads that waited": got[`ipcs_reads_total{source="peer"}`] > 0,
		"a wait each":       got["ipcs_read_wait_seconds_count"] == got[`ipcs_reads_total{source="peer"}`],
		"time waited":       got["ipcs_read_wait_seconds_sum"] > 0,
		"no errors":         got["ipcs_read_errors_total"] == 0,
		"fetched files":     got["ipcs_fetched_files_total"] >= files && files > 100,
		"bytes of the peer": got[`ipcs_peer_received_bytes_total{peer="`+source.ID+`"}`] >= got["ipcs_fetched_bytes_total"],
		"bytes":             got["ipcs_fetched_bytes_total"] > 1<<20 && got["ipcs_store_used_bytes"] > 1<<20,
		"files not opened":  got[`ipcs_prefetch_unopened_files{by="fill"}`] > files/2,
		"connected":         got[`ipcs_peers{state="connected"}`] == 1 && got["ipcs_relay_connected"] == 1,
		"mounted":           got["ipcs_mounted_images"] >= 1,
	} {
		if !ok {
			t.Errorf("%s: %v", name, got)
		}
	}

	seen.came(source.ID)

	if _, err := c.exec(t.Context(), "all", "sh", "-c", hashAll); err != nil {
		t.Fatal(err)
	}
	got = seen.scraped("what was fetched ahead is opened", func(v map[string]float64) bool {
		return v[`ipcs_prefetch_hit_files_total{by="fill"}`] > files/2
	})
	t.Logf("%v files prefetched, %v opened", files, got[`ipcs_prefetch_hit_files_total{by="fill"}`])
	seen.pull(other, "ipcs")
	got = seen.scraped("shared files are counted", func(v map[string]float64) bool { return v["ipcs_saved_files_total"] > files/2 })
	if got[`ipcs_saved_bytes_total{by="file"}`] < 1<<20 {
		t.Errorf("%v bytes saved", got[`ipcs_saved_bytes_total{by="file"}`])
	}
	seen.watched()
}

// came finds in the status that all of the image came from one peer.
func (w *world) came(peer string) {
	w.t.Helper()
	status, err := w.daemon.Status(w.t.Context())
	w.must(err)
	for _, c := range status.Chains {
		// Files of nothing but zeros, and leaves that two files have, come from nobody or once.
		if len(c.Peers) != 1 || c.Peers[0].ID != peer || c.Peers[0].Bytes > c.LocalBytes || c.Peers[0].Bytes < c.LocalBytes*9/10 {
			w.t.Errorf("of %d bytes that are here: %+v, want all from %s", c.LocalBytes, c.Peers, peer)
		}
	}
	text, err := lab.Output(w.daemon.Command(w.t.Context(), "status"))
	w.must(err)
	w.t.Logf("%s", text)
	if !strings.Contains(text, "  from "+peer+": ") {
		w.t.Errorf("it is not shown who the image came from:\n%s", text)
	}
}

// watched looks at the status twice, with one command, and interrupts that.
func (w *world) watched() {
	w.t.Helper()
	cmd := w.daemon.Command(w.t.Context(), "status", "--watch", "--interval", "100ms")
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	filled, rates := 0, 0
	for lines := bufio.NewScanner(out); filled < 2 && lines.Scan(); {
		if strings.Contains(lines.Text(), "image") && strings.HasSuffix(lines.Text(), "filled") {
			filled++
			if strings.Contains(lines.Text(), " B/s, ") {
				rates++
			}
		}
	}
	w.must(cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil || filled != 2 || rates != 1 {
		w.t.Errorf("status --watch: %v; %d lines of an image, %d with a rate", err, filled, rates)
	}
}
