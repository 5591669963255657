package origin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// newSource returns a source whose node has one peer, and whose origin knows an image.
func newSource(t *testing.T, im *origintest.Image) (src *origin.Source, node, peer *ipfstest.Memory, place *origintest.Place) {
	t.Helper()
	node, peer = ipfstest.NewMemory(), ipfstest.NewMemory()
	node.Connect(peer)
	place = &origintest.Place{Name: "place", Blobs: im.Blobs}
	o := newOrigin(t, im, place)
	o.Recorded(im.Record, im.Image)
	return origin.NewSource(node, o), node, peer, place
}

// ranks runs a test with what somebody waits for, and with what nobody does: these come in different ways.
func ranks(t *testing.T, test func(ctx context.Context, t *testing.T)) {
	for name, rank := range map[string]ipfs.Rank{"demanded": ipfs.Demanded, "spare": ipfs.Spare} {
		t.Run(name, func(t *testing.T) { test(ipfs.WithRank(t.Context(), rank), t) })
	}
}

func put(t *testing.T, node *ipfstest.Memory, list []ipfs.Block) {
	t.Helper()
	if err := node.Put(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
}

// TestPeersFirst has peers give what they have, and the origin the rest.
func TestPeersFirst(t *testing.T) { ranks(t, peersFirst) }

func peersFirst(ctx context.Context, t *testing.T) {
	im := origintest.NewImage(t, 1, 60, 40<<10)
	src, node, peer, place := newSource(t, im)
	list := im.Layers[0]
	put(t, peer, list[:30])
	fetchWith(ctx, t, src, list[:30])
	if r := place.Requests(); len(r) > 0 {
		t.Errorf("what a peer has is asked of the origin: %v", r)
	}
	fetchWith(ctx, t, src, list)
	if r := place.Requests(); len(r) == 0 {
		t.Error("nothing came from the origin")
	}
	// What came for Get is kept.
	data, err := src.Get(ctx, list[40].Cid)
	if err != nil || !bytes.Equal(data, list[40].Data) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if ok, err := node.Has(t.Context(), list[40].Cid); !ok || err != nil {
		t.Errorf("it is not kept: %v", err)
	}
}

// TestSlowPeers has a peer say nothing for long: the origin gives what somebody waits for.
func TestSlowPeers(t *testing.T) { ranks(t, slowPeers) }

func slowPeers(ctx context.Context, t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 40<<10)
	src, node, peer, place := newSource(t, im)
	put(t, peer, im.Layers[0])
	node.SetLatency(time.Hour)
	fetchWith(ctx, t, src, im.Layers[0])
	if r := place.Requests(); len(r) == 0 {
		t.Error("nothing came from the origin")
	}
}

// TestOriginComesToKnow has blocks be wanted before it is known where their image is kept.
func TestOriginComesToKnow(t *testing.T) { ranks(t, originComesToKnow) }

func originComesToKnow(ctx context.Context, t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 40<<10)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	node := ipfstest.NewMemory()
	node.SetLatency(time.Hour)
	o := newOrigin(t, origintest.NewImage(t, 2, 1, 10), place)
	done := make(chan struct{})
	go func() {
		defer close(done)
		fetchWith(ctx, t, origin.NewSource(node, o), im.Layers[0])
	}()
	o.Located(im.Record, "place")
	o.Recorded(im.Record, im.Image)
	<-done
}

// TestBackToPeers has the origin fail: peers are waited for, and the error says what both say.
func TestBackToPeers(t *testing.T) { ranks(t, backToPeers) }

func backToPeers(ctx context.Context, t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 40<<10)
	src, _, peer, place := newSource(t, im)
	place.Change(func(origintest.Request, []byte) ([]byte, error) { return nil, origintest.ErrPlace })
	err := src.Fetch(ctx, cids(im.Layers[0]), func(ipfs.Block) error { return nil })
	if !errors.Is(err, ipfs.ErrNotFound) || !errors.Is(err, origintest.ErrPlace) {
		t.Errorf("nobody has it: %v", err)
	}
	// The peer gets them while the origin is asked.
	place.Change(func(origintest.Request, []byte) ([]byte, error) {
		put(t, peer, im.Layers[0])
		return nil, origintest.ErrPlace
	})
	node := &crowd{ipfstest.NewMemory(), "self", func() []string { return nil }}
	node.Connect(peer)
	o := newOrigin(t, im, place)
	o.Recorded(im.Record, im.Image)
	fetchWith(ctx, t, origin.NewSource(node, o), im.Layers[0])
}

// TestSourceEnds has whoever asks refuse a block of a peer and of the origin, and go.
func TestSourceEnds(t *testing.T) { ranks(t, sourceEnds) }

func sourceEnds(ctx context.Context, t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 40<<10)
	src, _, peer, _ := newSource(t, im)
	failed := errors.New("failed")
	for _, have := range []int{0, 5} {
		put(t, peer, im.Layers[0][:have])
		if err := src.Fetch(ctx, cids(im.Layers[0]), func(ipfs.Block) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("with %d blocks of the peer: %v", have, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if err := src.Fetch(ctx, cids(im.Layers[0]), func(ipfs.Block) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAway has the only place be away for a while: reads wait for it, as long as they may.
func TestAway(t *testing.T) { ranks(t, away) }

func away(ctx context.Context, t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 40<<10)
	src, _, _, place := newSource(t, im)
	away := 4
	place.Change(func(_ origintest.Request, data []byte) ([]byte, error) {
		if away--; away > 0 {
			return nil, fmt.Errorf("refused: %w", origin.ErrAway)
		}
		return data, nil
	})
	fetchWith(ctx, t, src, im.Layers[0])
	place.Change(func(_ origintest.Request, data []byte) ([]byte, error) { return data[:len(data)/2], nil })
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	other := origintest.NewImage(t, 2, 20, 40<<10)
	for d, b := range other.Blobs {
		place.Blobs[d] = b
	}
	o := newOrigin(t, other, place)
	o.Recorded(other.Record, other.Image)
	err := origin.NewSource(ipfstest.NewMemory(), o).Fetch(ctx, cids(other.Layers[1]), func(ipfs.Block) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, origin.ErrAway) {
		t.Errorf("it does not come back: %v", err)
	}
}
