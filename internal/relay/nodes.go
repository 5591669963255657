package relay

import (
	"bytes"
	"maps"
	"slices"
)

// nodes are what the kernel remembers, learned from what it asks and is told. They are
// guarded by Relay.mu.
type nodes map[uint64]Node

// answered takes up the answer to a lookup. The kernel counts one more, unless it does
// not take the answer (undo).
func (ns nodes) answered(request in, answer []byte) (undo func()) {
	// struct fuse_entry_out: the node, 32 bytes of validity, the attributes, whose second
	// field is the size.
	const entry, size = replyHeader, replyHeader + 48
	if len(answer) < size+8 || out(answer).code() != 0 {
		return func() {}
	}
	id := order.Uint64(answer[entry:])
	name, _, _ := bytes.Cut(request[requestHeader:], []byte{0})
	if id == 0 || len(name) > maxName {
		return func() {}
	}
	n := ns[id]
	n.ID, n.Parent, n.Name, n.Size = id, request.node(), string(name), order.Uint64(answer[size:])
	n.Lookups++
	ns[id] = n
	return func() { ns.forget(id, 1) }
}

// forgotten takes up what the kernel says to have forgotten.
func (ns nodes) forgotten(request in) {
	body := request[requestHeader:]
	switch {
	case request.opcode() == opForget && len(body) >= 8:
		ns.forget(request.node(), order.Uint64(body))
	case request.opcode() == opBatchForget && len(body) >= 8:
		count := int(order.Uint32(body))
		for body = body[8:]; count > 0 && len(body) >= 16; count-- {
			ns.forget(order.Uint64(body), order.Uint64(body[8:]))
			body = body[16:]
		}
	}
}

func (ns nodes) forget(id, lookups uint64) {
	n, ok := ns[id]
	if !ok {
		return
	}
	if n.Lookups -= min(lookups, n.Lookups); n.Lookups == 0 {
		delete(ns, id)
		return
	}
	ns[id] = n
}

func (ns nodes) all() []Node { return slices.Collect(maps.Values(ns)) }
