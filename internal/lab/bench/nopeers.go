package bench

import (
	"context"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// noPeers is what is left when nobody but a registry has anything.
func noPeers() Scenario {
	slow, fast := Link{Mbit: 200}, Link{Mbit: 1000}
	far := Link{Mbit: 1000, RTT: 20 * time.Millisecond}
	s := Scenario{
		Name:  "no-peers",
		Title: "With no peer but the registry",
		About: "The cold starts again, where ipcs knows no peer and no publisher's node: all comes from the registry, which " +
			"has the seeds of the image. Names with `-all` are all content of an image, on the disk. What is measured is as in those scenarios. " + bothEnds,
		Systems: []string{"overlayfs", "ipcs-registry", "ipcs-registry-profile", "ipcs-registry-fetch", "stargz-optimized"},
		Main:    []string{metricReady.Name, metricLocal.Name, metricReceived.Name},
		Measure: measureNoPeers,
	}
	for _, c := range workloads {
		c.Links, c.Quick = []Link{fast, slow, far}, 0
		c.Only = []string{"overlayfs", "ipcs-registry", "ipcs-registry-profile", "stargz-optimized"}
		s.Cases = append(s.Cases, c)
	}
	s.Cases = append(s.Cases,
		Case{Name: "python-all", Image: "debian", Links: []Link{fast, slow, far}, Rounds: 5, Only: []string{"overlayfs", "ipcs-registry-fetch"}},
		Case{Name: "golang-all", Image: "golang", Links: []Link{fast, slow, far}, Rounds: 3, Only: []string{"overlayfs", "ipcs-registry-fetch"}},
	)
	return s
}

// measureNoPeers publishes the image, and starts it or brings all of it to new hosts.
func measureNoPeers(ctx context.Context, r *Run) error {
	if r.Command != "" {
		return measureCold(ctx, r)
	}
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, published, err := publish(ctx, r, l, r.Image)
		if err != nil {
			return err
		}
		return r.consume(ctx, l, site, published, func(t trial) error { return t.full(ctx) })
	})
}
