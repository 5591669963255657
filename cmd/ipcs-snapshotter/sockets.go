package main

import (
	"context"
	"fmt"
	"net"
)

// sockets are what the daemon answers on. metrics, registry, routing and gateway may be nil.
type sockets struct{ snaps, diff, content, api, cri, metrics, registry, routing, gateway net.Listener }

// listen opens the sockets.
func listen(ctx context.Context, cfg config, started *closers) (s sockets, err error) {
	for _, of := range []struct {
		what, path string
		to         *net.Listener
	}{
		{"snapshotter socket", cfg.snapshotterSocket(), &s.snaps},
		{"diff socket", cfg.diffSocket(), &s.diff},
		{"content socket", cfg.contentSocket(), &s.content},
		{"API socket", cfg.apiSocket(), &s.api},
		{"CRI socket", cfg.criSocket(), &s.cri},
	} {
		if *of.to, err = listenUnix(ctx, of.path); err != nil {
			return s, err
		}
		started.add(of.what, ignoreClosed(*of.to))
	}
	if s.registry, err = listenRegistry(cfg, started); err != nil {
		return s, err
	}
	for _, of := range []struct {
		what, address, flag string
		to                  *net.Listener
	}{
		{"metrics", cfg.Metrics.Address, "--metrics-address", &s.metrics},
		{"the gateway", cfg.Gateway.Address, "--gateway-address", &s.gateway},
		{"routing", cfg.Routing.Address, "--routing-address", &s.routing},
	} {
		if of.address == "" {
			continue
		}
		if *of.to, err = net.Listen("tcp", of.address); err != nil {
			return s, fmt.Errorf("serve %s: %w; choose another address with %s", of.what, err, of.flag)
		}
		started.add("address of "+of.what, ignoreClosed(*of.to))
	}
	return s, nil
}
