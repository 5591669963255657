package e2e

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// kills is how often the daemon is killed while containers read.
const kills = 50

// hashAll reads all files of an image, eight at a time, and prints their hashes.
const hashAll = `find /usr /etc /opt -xdev -type f -print0 | sort -z | xargs -0 -P 8 -n 8 sha256sum | sort -k 2`

// TestKills kills the daemon while a container reads files that are not here, and others
// that are, from eight processes: the daemon that follows answers what was asked of the one
// before, and nobody notices but by the time it takes.
func TestKills(t *testing.T) {
	t.Parallel() // most of the time it waits
	layout := labtest.Image(t, "small")
	w := newWorld(t, "kills", 0)
	plain := w.push(layout)
	ref := w.convert(plain)
	w.pull(plain, "overlayfs")
	want := w.run("want", plain, "overlayfs", "sh", "-c", hashAll)
	w.pull(ref, "ipcs")
	reader := w.start("reader", ref)
	// The container must be busy for as long as daemons die.
	w.must(w.consume.SetRate(t.Context(), 20))

	read := reader.begin(t.Context(), "hash", "sh", "-c", hashAll)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	var got *execution
	died := 0
	for ; died < kills && got == nil; died++ {
		select {
		case r := <-read:
			got = &r
		case <-time.After(time.Duration(moments.IntN(300)) * time.Millisecond):
		}
		w.daemon.Kill()
		w.must(w.daemon.Start(t.Context()))
	}
	if got == nil {
		w.must(w.consume.SetRate(t.Context(), 1000))
		r := <-read
		got = &r
	} else {
		t.Logf("the container was done after %d kills", died)
	}
	if got.err != nil {
		t.Fatalf("read: %v", got.err)
	}
	if got.out != want {
		t.Errorf("%d lines of hashes differ from those of overlayfs", len(diffLines(want, got.out)))
	}
	log, err := os.ReadFile(w.daemon.Log())
	w.must(err)
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "cannot read a file") {
			t.Errorf("the daemon failed a read: %s", line)
		}
	}
	w.reached()
}

// diffLines returns the lines of a that are not in b.
func diffLines(a, b string) []string {
	have := make(map[string]bool)
	for line := range strings.Lines(b) {
		have[line] = true
	}
	var missing []string
	for line := range strings.Lines(a) {
		if !have[line] {
			missing = append(missing, line)
		}
	}
	return missing
}
