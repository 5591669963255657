package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/packs"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

type storeConfig struct {
	Limit byteSize `toml:"limit"`
}

// byteSize is a number of bytes that is written as "50GB" or "40GiB".
type byteSize int64

// UnmarshalText parses what TOML holds.
func (b *byteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err == nil && n > math.MaxInt64 {
		err = strconv.ErrRange
	}
	if err != nil {
		return fmt.Errorf("size %q: %w (an example: 50GB; 0 for no limit)", text, err)
	}
	*b = byteSize(n)
	return nil
}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error { return b.UnmarshalText([]byte(s)) }

// String implements pflag.Value.
func (b *byteSize) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type implements pflag.Value.
func (*byteSize) Type() string { return "size" }

// indexes returns a function that names the indexes of the layers that snapshots use. They
// are kept, with or without a limit: the next daemon needs them for containers that run, and
// there may be no peer then.
func (p *parts) indexes(ctx context.Context, log *slog.Logger) func() []cid.Cid {
	ctx = context.WithoutCancel(ctx)
	return func() []cid.Cid {
		var list []cid.Cid
		for _, root := range p.snaps.LayerRoots() {
			data, err := p.store.Get(ctx, root)
			if err == nil {
				var l *layer.Layer
				if l, err = layer.ParseRoot(ipfs.Block{Cid: root, Data: data}); err == nil {
					list = append(list, l.IndexCid)
				}
			}
			if err != nil {
				log.Warn("the index of a layer is not kept: its root is not here", "root", root.String(), "error", err)
			}
		}
		return list
	}
}

// packsRoom says how much of the disk compressed forms may take: half of what the objects
// take, and with a limit what these leave of nine tenths of it, but no more than a quarter.
func (p *parts) packsRoom(cfg config) func() int64 {
	return func() int64 {
		space := p.store.Space()
		used := space.Used - space.Spare
		if limit := int64(cfg.Store.Limit); limit > 0 {
			return max(0, min(limit/4, limit-limit/10-used))
		}
		return used / 2
	}
}

// forms are the compressed forms of what is in the store. A file is used when a peer gets it
// in this form as well.
type forms struct {
	*packs.Packs
	store *objects.Store
}

// Form implements embedded.Forms.
func (f forms) Form(c cid.Cid) (frame []byte, size int, ok bool) {
	if frame, size, ok = f.Packs.Form(c); ok {
		f.store.TouchLeaf(c)
	}
	return frame, size, ok
}

// storeStatus is the store's part of the status. Counts are since the daemon's start.
type storeStatus struct {
	Objects        int64  `json:"objects"`
	Bytes          int64  `json:"bytes"`
	Limit          int64  `json:"limit"`      // 0: none
	Used           int64  `json:"used"`       // as the limit counts
	Compressed     int64  `json:"compressed"` // of used: forms of files that are kept for peers
	EvictedObjects int64  `json:"evicted_objects"`
	EvictedBytes   int64  `json:"evicted_bytes"`
	HeldBytes      *int64 `json:"held_bytes,omitempty"` // evicted, and not given back yet; absent if not known
}

func newStoreStatus(s *objects.Store) storeStatus {
	stored, space := s.Stats(), s.Space()
	st := storeStatus{
		Objects: stored.Objects, Bytes: stored.Bytes, Limit: space.Limit, Used: space.Used, Compressed: space.Spare,
		EvictedObjects: space.EvictedObjects, EvictedBytes: space.EvictedBytes,
	}
	if space.Held >= 0 {
		st.HeldBytes = &space.Held
	}
	return st
}

// lines are what is shown of it.
func (s storeStatus) lines() []string {
	var out []string
	if s.Limit == 0 {
		out = append(out, fmt.Sprintf("%d objects, %s", s.Objects, humanBytes(s.Bytes)))
	} else {
		out = append(out, fmt.Sprintf("%d objects, %s of at most %s", s.Objects, humanBytes(s.Used), humanBytes(s.Limit)))
	}
	if s.Compressed > 0 {
		out = append(out, fmt.Sprintf("%s of compressed forms for peers", humanBytes(s.Compressed)))
	}
	if s.EvictedObjects > 0 {
		held := "an unknown part"
		if s.HeldBytes != nil {
			held = humanBytes(*s.HeldBytes)
		}
		out = append(out, fmt.Sprintf("%d objects evicted since the start, %s, of which mounts still hold %s", s.EvictedObjects, humanBytes(s.EvictedBytes), held))
	}
	return out
}
