package kubo

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	mh "github.com/multiformats/go-multihash"
)

const agent = "ipcs"

// An Identity says who the node behind a handler is.
type Identity interface {
	ID() string
	Addrs() []string
}

type connector interface {
	Connect(ctx context.Context, addr string) error
}

func (h *handler) id(w http.ResponseWriter, r *http.Request, q url.Values) error {
	asked, err := texts(r, q)
	if err != nil {
		return err
	}
	self := h.identity.ID()
	if len(asked) > 1 || len(asked) == 1 && asked[0] != self {
		return usage("this daemon says of no other node than its own (%s) who it is", self)
	}
	addrs := h.identity.Addrs()
	if addrs == nil {
		addrs = []string{}
	}
	return reply(w, map[string]any{
		"ID": self, "PublicKey": publicKey(self), "Addresses": addrs, "AgentVersion": agent, "Protocols": []string{},
	})
}

// publicKey returns the key that an ID holds, if it does, as Kubo has it: an ID of Ed25519 is no
// hash of the key, but the key itself.
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
func publicKey(id string) string {
	hash, err := mh.FromB58String(id)
	if err != nil {
		return ""
	}
	key, err := mh.Decode(hash)
	if err != nil || key.Code != mh.IDENTITY {
		return ""
	}
	return base64.StdEncoding.EncodeToString(key.Digest)
}

func (h *handler) swarmPeers(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	type connection struct{ Addr, Peer string }
	peers := []connection{}
	if c, ok := h.identity.(interface{ Connected() []string }); ok {
		for _, a := range c.Connected() {
			if addr, id, ok := strings.Cut(a, "/p2p/"); ok {
				peers = append(peers, connection{addr, id})
			}
		}
	}
	return reply(w, map[string]any{"Peers": peers})
}

// swarmConnect connects to peers, one after the other, until one cannot be reached.
func swarmConnect(c connector) command {
	return func(w http.ResponseWriter, r *http.Request, q url.Values) error {
		addrs, err := texts(r, q)
		if err != nil {
			return err
		}
		if len(addrs) == 0 {
			return usage(`argument "address" is required`)
		}
		done := []string{}
		for _, addr := range addrs {
			id := addr[strings.LastIndex(addr, "/")+1:]
			if err := c.Connect(r.Context(), addr); err != nil {
				return fmt.Errorf("connect %s failure: %w", shorten(id), err)
			}
			done = append(done, "connect "+id+" success")
		}
		return reply(w, map[string]any{"Strings": done})
	}
}
