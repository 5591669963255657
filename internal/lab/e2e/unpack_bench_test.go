package e2e

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// BenchmarkUnpack pulls an image onto overlayfs with the transfer service, from a registry
// and a publisher on the same computer, in rounds: the ordinary image with containerd's own
// differ and with ours, and the ipcs image with ours, whose files are here since the first
// pull. That one, in which they come from the publisher, is "ipcs-first-s".
func BenchmarkUnpack(b *testing.B) {
	w := newWorldWith(b, "unpbench", options{loopback: true, unpack: true})
	stock, err := w.consume.StartContainerd(b.Context(), lab.ContainerdOptions{Root: "stock"})
	w.must(err)
	b.Cleanup(func() {
		if err := stock.Process.Stop(); err != nil {
			b.Error(err)
		}
	})
	original := w.push(labtest.Image(b, "golang"))
	ipcs := w.convert(original)
	first := pullOnce(b, w.containerd, ipcs, "overlayfs")
	cases := []struct {
		name, ref  string
		containerd *lab.Containerd
	}{{"walking", original, stock}, {"ipcs-diff", original, w.containerd}, {"ipcs", ipcs, w.containerd}}
	took := make([]time.Duration, len(cases))
	for round := 0; b.Loop(); round++ {
		for k := range cases { // each is first in its turn: the disk still has what went before
			i := (round + k) % len(cases)
			took[i] += pullOnce(b, cases[i].containerd, cases[i].ref, "overlayfs")
		}
	}
	b.ReportMetric(first.Seconds(), "ipcs-first-s")
	for i, c := range cases {
		b.ReportMetric(took[i].Seconds()/float64(b.N), c.name+"-s")
	}
}

// pullOnce pulls an image, and removes it and its snapshots, which does not count.
func pullOnce(b *testing.B, c *lab.Containerd, ref, snapshotter string) time.Duration {
	b.Helper()
	start := time.Now()
	_, err := lab.Output(c.Ctr(b.Context(), "image", "pull", "--plain-http", "--snapshotter", snapshotter, ref))
	took := time.Since(start)
	b.Logf("%s at %s: %v", ref, c.Address, took)
	if err == nil {
		err = c.Client.ImageService().Delete(c.Context(b.Context()), ref, images.SynchronousDelete())
	}
	if err != nil {
		b.Fatal(err)
	}
	return took
}
