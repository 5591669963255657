//go:build linux

package snapshotter

import (
	"archive/tar"
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
)

// stored is a node with a store on disk that knows a peer.
type stored struct {
	*objects.Store
	peer *ipfstest.Memory
}

func (n stored) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if data, err := n.Store.Get(ctx, c); err == nil {
		return data, nil
	}
	return n.peer.Get(ctx, c)
}

func (n stored) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := n.Get(ctx, c)
		if err == nil {
			err = fn(ipfs.Block{Cid: c, Data: data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestFreeIndex frees the index of a layer that has gone, but not if it is pulled again when it is
// settled what may go, or just before.
func TestFreeIndex(t *testing.T) {
	for name, limit := range map[string]int64{"unlimited": 0, "limited": 1 << 40} {
		t.Run(name, func(t *testing.T) { testFreeIndex(t, limit) })
	}
}

func testFreeIndex(t *testing.T, limit int64) {
	peer := ipfstest.NewMemory()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	result, err := layer.Write(t.Context(), peer, &archive, layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	root := result.Root.Cid
	l, err := layer.ParseRoot(result.Root)
	if err != nil || l.IndexCid.Type() != cid.Raw {
		t.Fatalf("the index %v is not of one leaf (%v)", l.IndexCid, err)
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name           string
		before, during bool // that it is settled, it is pulled again
		stays          bool
	}{{"pulled", true, false, true}, {"during", false, true, true}, {"gone", false, false, false}} {
		store, err := objects.Open(dir, objects.Options{}) // another process: it was put long ago
		if err != nil {
			t.Fatal(err)
		}
		store.Limit(limit, nil)
		s := &Snapshotter{files: newFileSet(), opener: newOpener(stored{store, peer}, time.Minute, slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler)}
		pull := func() {
			if _, err := s.opener.open(t.Context(), root); err != nil {
				t.Fatal(err)
			}
		}
		if c.before {
			pull()
		}
		since := time.Now()
		gone, done := s.unusedObjects(t.Context(), []cid.Cid{root})
		if c.during {
			pull()
		}
		if wantDone := !c.before; (len(done) == 1) != wantDone || (len(gone) == 1) != wantDone {
			t.Errorf("%s: %d objects may go, dealt with: %v", c.name, len(gone), done)
		}
		if _, err := store.Free(t.Context(), gone, since); err != nil {
			t.Fatal(err)
		}
		if has, err := store.Has(t.Context(), l.IndexCid); has != c.stays || err != nil {
			t.Errorf("%s: the index is here: %v (%v)", c.name, has, err)
		}
		s.opener.close()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
