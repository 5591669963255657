package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// BenchmarkPullDeep pulls an ipcs image of 100 layers with a daemon that writes their blobs
// into containerd's content store, and with one that cannot, in turns.
func BenchmarkPullDeep(b *testing.B) {
	w := newWorldWith(b, "deep", options{loopback: true})
	without := w.beside("without")
	w.must(os.Remove(without.daemon.Containerd()))
	ref := w.convert(w.push(labtest.Image(b, "layers-100")))
	sides := []*world{w, without}
	for _, side := range sides { // indexes come from the publisher once
		pullOnce(b, side.containerd, ref, "ipcs")
	}
	took := make([]time.Duration, len(sides))
	for round := 0; b.Loop(); round++ {
		for k := range sides {
			i := (round + k) % len(sides)
			took[i] += pullOnce(b, sides[i].containerd, ref, "ipcs")
		}
	}
	for i, name := range []string{"blobs-s", "without-s"} {
		b.ReportMetric(took[i].Seconds()/float64(b.N), name)
	}
}
