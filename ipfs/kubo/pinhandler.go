package kubo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
)

type pinsReply struct{ Pins []string }

// completeOption is ours: the caller has put all of the DAG, and it need not be looked for.
const completeOption = "ipcs-complete"

// pin gets all of a DAG that is not here from src, and pins it. It looks twice: until the pin is
// made, what is here already may go.
func (h *handler) pin(ctx context.Context, src dag.Store, p ipfs.Pin) error {
	if err := dag.Complete(ctx, src, p.Root); err != nil {
		return fmt.Errorf("pin %s: %w", p.Root, missing(p.Root, err))
	}
	before, err := h.node.Pins(ctx, p.Name)
	if err != nil {
		return err
	}
	if err := h.node.Pin(ctx, p); err != nil {
		return err
	}
	if err := dag.Complete(ctx, src, p.Root); err != nil {
		if !slices.Contains(before, p) {
			err = errors.Join(err, h.node.Unpin(context.WithoutCancel(ctx), p))
		}
		return fmt.Errorf("pin %s: %w", p.Root, missing(p.Root, err))
	}
	return nil
}

// pinKnown pins what the caller has put here. The root at least must be.
func (h *handler) pinKnown(ctx context.Context, p ipfs.Pin) error {
	ok, err := h.node.Has(ctx, p.Root)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("pin: put the DAG on this node first: %w", missing(p.Root, ipfs.ErrNotFound))
	}
	return h.node.Pin(ctx, p)
}

// pinArgs returns what pin/add and pin/rm are about.
func (h *handler) pinArgs(r *http.Request, q url.Values) (roots []cid.Cid, name string, err error) {
	roots, err = h.cids(r, q)
	if err != nil {
		return nil, "", err
	}
	if len(roots) == 0 {
		return nil, "", usage(`argument "ipfs-path" is required`)
	}
	recursive, err := option(q, "recursive", true)
	if err != nil {
		return nil, "", err
	}
	if !recursive {
		return nil, "", usage("direct pins are not supported")
	}
	name = q.Get("name")
	if len(name) > maxName {
		return nil, "", usage("pin name is longer than %d bytes", maxName)
	}
	return roots, name, nil
}

func (h *handler) pinAdd(w http.ResponseWriter, r *http.Request, q url.Values) error {
	roots, name, err := h.pinArgs(r, q)
	if err != nil {
		return err
	}
	src, err := h.source(q)
	if err != nil {
		return err
	}
	complete, err := option(q, completeOption, false)
	if err != nil {
		return err
	}
	var out pinsReply
	for _, c := range roots {
		p := ipfs.Pin{Root: c, Name: name}
		if complete {
			err = h.pinKnown(r.Context(), p)
		} else {
			err = h.pin(r.Context(), src, p)
		}
		if err != nil {
			return err
		}
		out.Pins = append(out.Pins, c.String())
	}
	return reply(w, out)
}

// pinRm removes all pins of the roots. Our option name, which Kubo does not have and
// does not mind, restricts it to the pins with that name.
func (h *handler) pinRm(w http.ResponseWriter, r *http.Request, q url.Values) error {
	roots, name, err := h.pinArgs(r, q)
	if err != nil {
		return err
	}
	pins, err := h.node.Pins(r.Context(), "")
	if err != nil {
		return err
	}
	var out pinsReply
	for _, c := range roots {
		found := false
		for _, p := range pins {
			if !p.Root.Equals(c) || q.Has("name") && p.Name != name {
				continue
			}
			found = true
			if err := h.node.Unpin(r.Context(), p); err != nil {
				return err
			}
		}
		if !found {
			return fmt.Errorf("%s: %s or pinned indirectly", c, notPinnedMessage)
		}
		out.Pins = append(out.Pins, c.String())
	}
	return reply(w, out)
}

// selectPins returns the pins that pin/ls is asked for.
func (h *handler) selectPins(r *http.Request, q url.Values) ([]ipfs.Pin, error) {
	all, err := h.node.Pins(r.Context(), "")
	if err != nil {
		return nil, err
	}
	switch t := q.Get("type"); t {
	case "", "all", "recursive":
	case "direct", "indirect":
		all = nil // there are none
	default:
		return nil, usage("invalid type '%s', must be one of {direct, indirect, recursive, all}", t)
	}
	wanted, err := h.cids(r, q)
	if err != nil {
		return nil, err
	}
	byRoot := map[cid.Cid]bool{}
	for _, p := range all {
		byRoot[p.Root] = true
	}
	only := map[cid.Cid]bool{}
	for _, c := range wanted {
		if !byRoot[c] {
			return nil, fmt.Errorf("path '/ipfs/%s' is %s", c, notPinnedMessage)
		}
		only[c] = true
	}
	var pins []ipfs.Pin
	for _, p := range all {
		if (len(only) == 0 || only[p.Root]) && strings.Contains(p.Name, q.Get("name")) {
			pins = append(pins, p)
		}
	}
	return pins, nil
}

func (h *handler) pinLs(w http.ResponseWriter, r *http.Request, q url.Values) error {
	stream, err := option(q, "stream", false)
	if err != nil {
		return err
	}
	names, err := option(q, "names", q.Get("name") != "")
	if err != nil {
		return err
	}
	pins, err := h.selectPins(r, q)
	if err != nil {
		return err
	}
	type pinType struct{ Type, Name string }
	keys := map[string]pinType{}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Chunked-Output", "1")
	enc := json.NewEncoder(w)
	for _, p := range pins {
		if !names {
			p.Name = ""
		}
		if !stream {
			keys[p.Root.String()] = pinType{"recursive", p.Name}
			continue
		}
		if err := enc.Encode(pinReply{Cid: p.Root.String(), Name: p.Name, Type: "recursive"}); err != nil {
			return fmt.Errorf("%w: %w", errBegun, err)
		}
	}
	if stream {
		return nil
	}
	return reply(w, map[string]any{"Keys": keys})
}
