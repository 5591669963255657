package embedded

import (
	"context"
	"log/slog"
	"runtime"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
)

const (
	// packFrom is the size from which a block is compressed ahead of need.
	packFrom = 32 << 10
	// maxUnpacked bounds the blocks that wait for it. What is beyond is compressed when a peer
	// wants it.
	maxUnpacked = 1 << 16
	// idlePriority is the niceness of the packer: all else goes first.
	idlePriority = 19
)

// packer compresses blocks that were published on this node, one after the other, so that
// peers need not wait for it.
type packer struct {
	store Store
	forms Forms
	codec *transfer.Codec
	log   *slog.Logger
	queue chan cid.Cid
}

func newPacker(store Store, forms Forms, codec *transfer.Codec, log *slog.Logger) *packer {
	return &packer{store: store, forms: forms, codec: codec, log: log, queue: make(chan cid.Cid, maxUnpacked)}
}

// offer has blocks compressed some time.
func (p *packer) offer(blks []ipfs.Block) {
	for _, b := range blks {
		if len(b.Data) < packFrom || b.Cid.Prefix().Codec != cid.Raw {
			continue
		}
		select {
		case p.queue <- b.Cid:
		default:
			return
		}
	}
}

// run compresses until ctx ends.
func (p *packer) run(ctx context.Context) {
	// The thread is not unlocked, so that it ends with the goroutine.
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, idlePriority); err != nil {
		p.log.Warn("compressing for peers has no lower priority", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-p.queue:
			p.pack(ctx, c)
		}
	}
}

func (p *packer) pack(ctx context.Context, c cid.Cid) {
	if _, _, ok := p.forms.Form(c); ok {
		return
	}
	data, err := p.store.Get(ctx, c)
	if err != nil {
		return // it is gone, or whoever wants it will see
	}
	if frame := p.codec.Compress(data); frame != nil {
		p.forms.Keep(c, frame, len(data))
	}
}
