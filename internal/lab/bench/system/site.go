package system

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// A Site is where images come from. Its machines have their disks in memory: what the
// servers read is not to be measured, and dropping the page cache for a consumer would
// drop theirs.
type Site struct {
	Store     *lab.Machine // of the registry
	Registry  *lab.Registry
	Publisher *lab.Machine
	Layout    Layout
	// Profile returns the folder for the profiles of a program that publishes, and "" for
	// none.
	Profile func(program string) string

	daemon *lab.Daemon           // the publisher's ipcs; nil until needed
	spread *spread               // has the publisher's part; nil unless asked for
	kubo   *lab.Kubo             // the publisher's Kubo; nil until needed
	delays map[string]*lab.Delay // by where they are, what they lead to and their round trip
}

// Layout makes an image of the lab, if need be, and returns its OCI layout.
type Layout func(ctx context.Context, image string) (dir string, err error)

// NewSite adds the site's machines to a lab. Nothing of it is profiled unless Profile is
// set before something is published.
func NewSite(ctx context.Context, l *lab.Lab, layout Layout) (*Site, error) {
	s := &Site{Layout: layout, Profile: func(string) string { return "" }, delays: map[string]*lab.Delay{}}
	var err error
	opts := lab.MachineOptions{Memory: true}
	if s.Store, err = l.Add(ctx, "registry", opts); err != nil {
		return nil, err
	}
	if s.Publisher, err = l.Add(ctx, "publisher", opts); err != nil {
		return nil, err
	}
	s.Registry, err = s.Store.StartRegistry(ctx)
	return s, err
}

// Servers returns the machines that serve: registry, publisher, and those of a spread.
func (s *Site) Servers() []*lab.Machine {
	machines := []*lab.Machine{s.Store, s.Publisher}
	if s.spread != nil {
		machines = append(machines, s.spread.machines...)
	}
	return machines
}

// SetRate sets what the links of the site's machines carry, in Mbit/s.
func (s *Site) SetRate(ctx context.Context, mbit int) error {
	for _, m := range s.Servers() {
		if err := m.SetRate(ctx, mbit); err != nil {
			return err
		}
	}
	return nil
}

// Push copies an image of the lab to the registry and returns its reference.
func (s *Site) Push(ctx context.Context, image, tag string) (ref string, err error) {
	layout, err := s.Layout(ctx, image)
	if err != nil {
		return "", err
	}
	repository, _, _ := strings.Cut(image, "+")
	ref = fmt.Sprintf("%s/%s:%s", s.Registry.Addr, repository, tag)
	client := s.Store.HTTPClient()
	defer client.CloseIdleConnections()
	_, err = images.Copy(ctx, "oci:"+layout, ref, client)
	return ref, err
}

// publisherDaemon returns the publisher's ipcs, which it starts when it is first needed.
func (s *Site) publisherDaemon(ctx context.Context) (*lab.Daemon, error) {
	if s.daemon != nil {
		return s.daemon, nil
	}
	d, err := s.Publisher.StartDaemon(ctx, lab.DaemonOptions{Pprof: s.Profile("publisher")})
	if err != nil {
		return nil, err
	}
	s.daemon = d
	return d, nil
}

// into calls convert, which puts an image's blocks on the node at api, and returns the
// addresses of the nodes that have them then: the publisher's, or those of the spread.
func (s *Site) into(ctx context.Context, convert func(api string) error) (peers []string, err error) {
	if s.spread != nil {
		return s.spread.addrs, s.spread.fill(ctx, convert)
	}
	daemon, err := s.publisherDaemon(ctx)
	if err != nil {
		return nil, err
	}
	if err := convert(daemon.API); err != nil {
		return nil, err
	}
	status, err := daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	return status.Addrs, nil
}

// Delayed returns the image as a consumer reaches it with a round trip in between:
// through proxies on that machine, one for each server.
func (s *Site) Delayed(ctx context.Context, consumer *lab.Machine, img *Image, rtt time.Duration) (*Image, error) {
	if rtt == 0 {
		return img, nil
	}
	far := *img
	addr, err := s.delay(ctx, consumer, s.Registry.Addr, rtt)
	if err != nil {
		return nil, err
	}
	far.Ref = strings.Replace(img.Ref, s.Registry.Addr, addr, 1)
	far.Peers = nil
	for _, p := range img.Peers {
		// /ip4/ADDR/tcp/PORT/p2p/ID
		parts := strings.Split(p, "/")
		if len(parts) != 7 || parts[1] != "ip4" || parts[3] != "tcp" {
			return nil, fmt.Errorf("peer %s: want /ip4/ADDR/tcp/PORT/p2p/ID", p)
		}
		addr, err := s.delay(ctx, consumer, net.JoinHostPort(parts[2], parts[4]), rtt)
		if err != nil {
			return nil, err
		}
		if parts[2], parts[4], err = net.SplitHostPort(addr); err != nil {
			return nil, err
		}
		far.Peers = append(far.Peers, strings.Join(parts, "/"))
	}
	return &far, nil
}

// delay returns the address, on the consumer, of a proxy that leads to target.
func (s *Site) delay(ctx context.Context, consumer *lab.Machine, target string, rtt time.Duration) (string, error) {
	key := strings.Join([]string{consumer.Name, target, rtt.String()}, " ")
	if d := s.delays[key]; d != nil {
		return d.Addr, nil
	}
	d, err := consumer.StartDelay(ctx, target, rtt)
	if err != nil {
		return "", err
	}
	s.delays[key] = d // the lab closes it
	return d.Addr, nil
}
