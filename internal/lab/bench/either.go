package bench

import (
	"context"
	"strings"

	"github.com/hinshun/ipcs/internal/lab"
)

// slowLink is what the slower of publisher and registry has, in Mbit/s.
const slowLink = 10

// either is where publisher and registry both have all, and one is much slower.
func either() Scenario {
	s := Scenario{
		Name:  "either",
		Title: "Peers and registry, one of them slow",
		About: "A machine has an image that the publisher's node and the registry have, as seeds. Its own link carries 200 Mbit/s, and so " +
			"do theirs, but for one, which carries 10: the publisher's, or in `slow-registry` the registry's. `start` runs `import json, ssl, " +
			"http.server, sqlite3` in Python, and `all` brings all content to the disk. What is measured is as where only one of them is there. " + bothEnds,
		Systems: []string{"overlayfs", "ipcs-registry", "ipcs", "ipcs-either", "ipcs-registry-fetch", "ipcs-fetch", "ipcs-either-fetch"},
		Main:    []string{metricReady.Name, metricLocal.Name, metricReceived.Name},
		Measure: measureEither,
	}
	links := []Link{{Mbit: 200}}
	for _, name := range []string{"slow-publisher", "slow-registry"} {
		s.Cases = append(s.Cases,
			Case{Name: name + "-start", Image: "debian", Command: pythonImport, Rounds: 3, Links: links, Only: s.Systems[:4]},
			Case{Name: name + "-all", Image: "slice-25", Rounds: 3, Links: links, Only: append(s.Systems[:1:1], s.Systems[4:]...)},
		)
	}
	return s
}

// measureEither publishes the image, slows one of those who have it, and starts it or brings all of it to new hosts.
func measureEither(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, published, err := publish(ctx, r, l, r.Image)
		if err != nil {
			return err
		}
		slow := site.Publisher
		if strings.HasPrefix(r.Name, "slow-registry") {
			slow = site.Store
		}
		return r.consume(ctx, l, site, published, func(t trial) error {
			if err := slow.SetRate(ctx, slowLink); err != nil {
				return err
			}
			if r.Command == "" {
				return t.full(ctx)
			}
			st, err := t.start(ctx)
			if err == nil {
				t.recordStart(st)
			}
			return err
		})
	})
}
