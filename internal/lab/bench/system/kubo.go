package system

import (
	"context"
	"fmt"

	"github.com/hinshun/ipcs/internal/lab"
)

// kubo is ipcs with a Kubo daemon as the publisher's node. Consumers are as ever, and
// fetch from Kubo over bitswap.
type kubo struct{ ipcs }

func (kubo) Name() string { return "ipcs-kubo" }

func (kubo) About() string {
	return "this project with Kubo as the publisher's node, in its own configuration but for all that looks for other nodes: " +
		"the consumer's embedded node fetches from it over bitswap"
}

func (kubo) Missing(_ context.Context, programs Programs) string {
	if _, err := programs("ipfs"); err != nil {
		return "no ipfs (Kubo) among the lab's programs or on PATH"
	}
	return ""
}

// Publish converts the image onto Kubo.
func (k kubo) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	node, err := site.publisherKubo(ctx)
	if err != nil {
		return nil, err
	}
	ref, err := convert(ctx, site, source.Image, k.Name(), node.API)
	if err != nil {
		return nil, err
	}
	return &Image{Name: source.Image, Ref: ref, Peers: []string{node.Peer}}, nil
}

// publisherKubo returns the publisher's Kubo, which it starts when it is first needed.
func (s *Site) publisherKubo(ctx context.Context) (*lab.Kubo, error) {
	if s.kubo != nil {
		return s.kubo, nil
	}
	k, err := s.Publisher.StartKubo(ctx, lab.KuboOptions{})
	if err != nil {
		return nil, fmt.Errorf("start Kubo on %s: %w", s.Publisher.Name, err)
	}
	s.kubo = k
	return k, nil
}
