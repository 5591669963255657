package embedded

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/dht"
)

// lonely is a source that has nobody to tell for some time.
type lonely struct{ alone, calls int }

func (l *lonely) Find(context.Context, cid.Cid) ([]peer.AddrInfo, error) { return nil, nil }

func (l *lonely) Announce(context.Context, []cid.Cid, time.Duration) error {
	if l.calls++; l.calls <= l.alone {
		return dht.ErrAlone
	}
	return nil
}

// TestTellsSoon has the DHT be without another node at first: it is told what is here as soon as one is there, and then not again.
func TestTellsSoon(t *testing.T) {
	h, err := mocknet.New().GenPeer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	root, err := ipfs.NewBlock(cid.DagProtobuf, []byte("root"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := &lonely{alone: 20}
		f := newFinder(h, nil, func(context.Context) []cid.Cid { return []cid.Cid{root.Cid} }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), 30*announceCheck)
		defer cancel()
		f.announce(ctx, source{router: l, name: FoundDHT, every: time.Hour})
		if l.calls != l.alone+1 {
			t.Errorf("it was told %d times, want %d", l.calls, l.alone+1)
		}
	})
}
