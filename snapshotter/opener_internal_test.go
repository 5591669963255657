//go:build linux

package snapshotter

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// PutRecord writes the record of an image with these layers to the node.
func PutRecord(t testing.TB, node ipfs.Putter, roots []ipfs.Block) ipfs.Block {
	t.Helper()
	m := &layer.Image{Version: 1}
	for _, root := range roots {
		d, err := mediatype.LayerDigest(root.Cid)
		if err != nil {
			t.Fatal(err)
		}
		m.Layers = append(m.Layers, layer.ImageLayer{Digest: d, Block: root.Data})
	}
	b, err := layer.EncodeImage(m)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ipfs.NewBlock(cid.Raw, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Put(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	return block
}

// image writes n layers and their record to the node.
func image(t *testing.T, node *ipfstest.Memory, n int) (record cid.Cid, roots []ipfs.Block) {
	t.Helper()
	for i := range n {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("file", i), Mode: 0o644, Size: 1}), second(w.Write([]byte{byte(i)})), w.Close()); err != nil {
			t.Fatal(err)
		}
		result, err := layer.Write(t.Context(), node, &b, layer.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, result.Root)
	}
	return PutRecord(t, node, roots).Cid, roots
}

func second(_ int, err error) error { return err }

func unknown(cid.Cid) bool { return false }

// TestPrefetch opens all layers of an image from its record, without asking for any of
// their root blocks, and once each.
func TestPrefetch(t *testing.T) {
	node := ipfstest.NewMemory()
	record, roots := image(t, node, 20)
	node.SetFault(func(op string, c cid.Cid) error {
		for _, root := range roots {
			if c.Equals(root.Cid) {
				return errors.New("the root block is in the record")
			}
		}
		return nil
	})
	o := newOpener(node, time.Minute, slog.New(slog.DiscardHandler))
	o.prefetch(t.Context(), record, unknown, func(context.Context) {})
	o.prefetch(t.Context(), record, unknown, func(context.Context) {})
	o.prefetch(t.Context(), cid.Undef, unknown, func(context.Context) {})
	o.running.Wait()
	gets := node.Counts()
	for _, root := range roots {
		if _, err := o.open(t.Context(), root.Cid); err != nil {
			t.Error(err)
		}
	}
	if after := node.Counts(); after != gets {
		t.Errorf("opened layers were fetched again: %+v, before %+v", after, gets)
	}
	o.close()
	if _, err := o.open(t.Context(), ipfs.RawCid(string(make([]byte, 32)))); !errors.Is(err, errClosed) {
		t.Errorf("a closed opener opens: %v", err)
	}
}

// TestOpenOutlivesCaller cancels the first caller; the second gets the layer all the same.
func TestOpenOutlivesCaller(t *testing.T) {
	node := ipfstest.NewMemory()
	_, roots := image(t, node, 1)
	asked, answer := make(chan struct{}), make(chan struct{})
	first := true
	node.SetFault(func(string, cid.Cid) error {
		if first {
			first = false
			close(asked)
			<-answer
		}
		return nil
	})
	o := newOpener(node, time.Minute, slog.New(slog.DiscardHandler))
	defer o.close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := o.open(ctx, roots[0].Cid)
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, ErrIndexUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	close(answer)
	if _, err := o.open(t.Context(), roots[0].Cid); err != nil {
		t.Error(err)
	}
	if n := node.Counts(); n.Gets+n.Fetches > 3 {
		t.Errorf("the layer was opened twice: %+v", n)
	}
}

// TestOpenAgain joins an attempt that fails: a caller makes one of its own.
func TestOpenAgain(t *testing.T) {
	node := ipfstest.NewMemory()
	_, roots := image(t, node, 1)
	fail := make(chan struct{})
	failed := false
	node.SetFault(func(string, cid.Cid) error {
		if failed {
			return nil
		}
		<-fail
		failed = true
		return errors.New("a peer went away")
	})
	o := newOpener(node, time.Minute, slog.New(slog.DiscardHandler))
	defer o.close()
	o.openAhead(t.Context(), roots[0])
	done := make(chan error)
	go func() {
		_, err := o.open(t.Context(), roots[0].Cid)
		done <- err
	}()
	close(fail)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestOpenerForgets keeps no more of indexes than it may, but for one.
func TestOpenerForgets(t *testing.T) {
	o := newOpener(ipfstest.NewMemory(), time.Minute, slog.New(slog.DiscardHandler))
	defer o.close()
	index := encoded(t, manyFiles(100_000))
	most := maxCached / index.Size()
	var roots []cid.Cid
	for i := range most + 3 {
		root := ipfs.RawCid(fmt.Sprintf("%032d", i))
		roots = append(roots, root)
		o.mu.Lock()
		o.cache(root, &opened{index: index})
		o.mu.Unlock()
	}
	if most < 2 || len(o.cached) != most || len(o.order) != most || o.bytes != most*index.Size() {
		t.Errorf("%d layers and %d bytes are kept", len(o.cached), o.bytes)
	}
	o.forget(roots)
	if len(o.cached) != 0 || len(o.order) != 0 || o.bytes != 0 {
		t.Errorf("%d layers and %d bytes are kept", len(o.cached), o.bytes)
	}
}
