package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/hinshun/ipcs/internal/mirror"
	"github.com/hinshun/ipcs/internal/registry"
)

type registryConfig struct {
	Address string `toml:"address"`
}

func (c registryConfig) validate() error {
	if c.Address == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("configuration: registry.address %q: %w (an example: 127.0.0.1:5050)", c.Address, err)
	}
	return nil
}

// names are the hosts that this daemon's registry has in references: its address, and what packaging/hosts.toml calls it.
func (c registryConfig) names() []string {
	names := []string{"ipfs.localhost"}
	if _, port, err := net.SplitHostPort(c.Address); err == nil {
		names = append(names, c.Address, net.JoinHostPort("localhost", port))
	}
	return names
}

// own are the host:port that this daemon's registry has for containerd, and for what is on this machine.
func (c registryConfig) own() []string {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil
	}
	own := []string{c.Address, net.JoinHostPort("localhost", port), net.JoinHostPort("127.0.0.1", port)}
	if host == "" {
		own = append(own, net.JoinHostPort("::1", port))
	}
	return own
}

// listenRegistry listens where images are pulled from, if that is set.
func listenRegistry(cfg config, started *closers) (net.Listener, error) {
	if cfg.Registry.Address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", cfg.Registry.Address)
	if err != nil {
		return nil, fmt.Errorf("serve the registry: %w; choose another address with --registry-address", err)
	}
	started.add("registry address", ignoreClosed(l))
	return registry.Listener(l), nil
}

// serveRegistry adds the registry to what is served.
func serveRegistry(cfg config, p *parts, l net.Listener, https map[*http.Server]net.Listener, log *slog.Logger) {
	if l == nil {
		return
	}
	https[registry.NewServer(p.node, registry.Options{Timeout: time.Duration(cfg.Node.Timeout), Logger: log, Withheld: p.mirror.Withheld, Served: p.mirror.Served, Below: map[string]http.Handler{mirror.Path: p.mirror}})] = l
	log.Info("images are served as by a registry", "address", l.Addr().String())
	if at, ok := l.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() {
		log.Warn("registry.address is not on loopback: whoever reaches it can make this node fetch blocks, and read images that it has, by their CIDs")
	}
}
