package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/gateway"
)

// validate wants a host to be named: ":8080" would open the gateway to everybody unnoticed.
func (c gatewayConfig) validate() error {
	if c.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err == nil && host == "" {
		err = errors.New("it names no host; 0.0.0.0 and [::] are all of this machine's")
	}
	if err != nil {
		return fmt.Errorf("configuration: gateway.address %q: %w (an example: 127.0.0.1:8080)", c.Address, err)
	}
	return nil
}

// gatewayServer serves what is in the store, but for what peers do not get either. It knows no peers, so that nobody who asks it for something
// has this node fetch it.
func gatewayServer(store *objects.Store, withheld func(cid.Cid) bool) (*http.Server, error) {
	handler, err := gateway.NewHandler(embedded.Offline(embedded.Withholding(store, withheld)))
	if err != nil {
		return nil, err
	}
	return &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}, nil
}

// warnOpen says where the gateway is, and who can reach it.
func warnOpen(log *slog.Logger, addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		log.Warn("the gateway is open to other machines: whoever reaches it gets any block of this node by its CID", "address", addr.String())
		return
	}
	log.Info("a gateway is served", "address", addr.String())
}
