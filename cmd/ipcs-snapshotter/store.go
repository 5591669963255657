package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/packs"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/layer"
)

type storeConfig struct {
	Limit      byteSize `toml:"limit"`
	Compressed bool     `toml:"compressed"`
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

// openStore opens the store, and the compressed forms of what is in it.
func (p *parts) openStore(cfg config, log *slog.Logger, started *closers) (err error) {
	// Nothing is evicted before Limit is called, and then there are lazy files.
	opts := objects.Options{Logger: log, Evicted: func() { p.lazy.DropRemoved() }}
	dir := filepath.Join(cfg.Root, "packs")
	if p.packs = openForms(dir, cfg.Store.Compressed && cfg.Node.Kubo == "", log); p.packs != nil {
		started.add("compressed forms", p.packs.Close)
		opts.Spare = p.packs
	}
	if p.store, err = objects.Open(filepath.Join(cfg.Root, "repo"), opts); err != nil {
		return err
	}
	started.add("store", p.store.Close)
	if p.packs != nil {
		room := formsRoom{int64(cfg.Store.Limit), p.store.ObjectBytes, p.packs.Bytes, func() (free, size int64, err error) { return diskSpace(dir) }}
		p.packs.Start(room.bytes)
	}
	return nil
}

// openForms opens the compressed forms in dir: nil if there are to be none, or cannot be. The
// daemon does without.
func openForms(dir string, wanted bool, log *slog.Logger) *packs.Packs {
	if !wanted {
		if err := packs.Remove(dir); err != nil {
			log.Warn("store.compressed is off, and compressed forms of before are left", "err", err)
		}
		return nil
	}
	p, err := packs.Open(dir, log)
	if err != nil {
		log.Warn("files are not kept compressed for peers: this takes more processor time when they are wanted", "err", err)
	}
	return p
}

// reserveShare of a file system's size is left free by compressed forms.
const reserveShare = 10

// formsRoom says how much of the disk compressed forms may take.
type formsRoom struct {
	limit   int64                                // of the store; 0: none
	objects func() (bytes int64, known bool)     // that objects take
	forms   func() int64                         // bytes that they take
	disk    func() (free, size int64, err error) // where they are
}

// bytes returns half of what the objects take, and with a limit what these leave of nine tenths
// of it, but no more than a quarter; in any case no more than leaves a part of the disk free.
func (r formsRoom) bytes() (bytes int64, known bool) {
	used, known := r.objects()
	free, size, err := r.disk()
	if !known || err != nil {
		return 0, false
	}
	bytes = used / 2
	if r.limit > 0 {
		bytes = min(r.limit/4, r.limit-r.limit/10-used)
	}
	return max(0, min(bytes, r.forms()+free-size/reserveShare)), true
}

// diskSpace returns the size of the file system that dir is on, and what of it is free.
func diskSpace(dir string) (free, size int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("find out how full the disk is: %w", err)
	}
	return int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize, nil
}

// forms returns where the node keeps compressed forms: nil if nowhere.
func (p *parts) forms() embedded.Forms {
	if p.packs == nil {
		return nil
	}
	return forms{p.packs, p.store}
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
