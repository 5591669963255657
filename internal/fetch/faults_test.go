package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

var errPeers = errors.New("asked peers A and B")

// lost stands for a node whose peers are gone: it answers when its time is up.
func lost(ctx context.Context, _ cid.Cid) error {
	<-ctx.Done()
	return errPeers
}

func TestTimeoutThenSuccess(t *testing.T) {
	for _, size := range []int{5000, 3 * ipfs.LeafSize, 20 * ipfs.LeafSize} {
		data := objectstest.Random(1, size)
		file, leaves := objectstest.NewFile(t, data)
		src := fetchtest.New(leaves...)
		f, _ := newFetcher(t, src, 500*time.Millisecond)
		src.SetHook(lost)
		for range 2 {
			_, err := f.ReadAt(t.Context(), file, make([]byte, 1), 0)
			if !errors.Is(err, errPeers) || !strings.Contains(err.Error(), file.Cid.String()) || !strings.Contains(err.Error(), "waited") {
				t.Fatalf("read without peers: %v", err)
			}
		}
		if err := f.Ensure(t.Context(), file); !errors.Is(err, errPeers) {
			t.Fatalf("Ensure without peers: %v", err)
		}
		src.SetHook(nil)
		if got := readAll(t, f, file, ipfs.LeafSize); !bytes.Equal(got, data) {
			t.Fatal("read differs")
		}
	}
}

func TestReaderThatGivesUpLeavesTheFetchAlone(t *testing.T) {
	data := objectstest.Random(1, 5000)
	file, leaves := objectstest.NewFile(t, data)
	src := fetchtest.New(leaves...)
	asked, release := make(chan struct{}), make(chan struct{})
	src.SetHook(func(context.Context, cid.Cid) error {
		close(asked)
		<-release
		return nil
	})
	f, _ := newFetcher(t, src, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := f.ReadAt(ctx, file, make([]byte, 1), 0)
		gone <- err
	}()
	<-asked
	stays := make(chan []byte)
	go func() { stays <- readAll(t, f, file, 1000) }()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader that gave up: %v", err)
	}
	close(release)
	if got := <-stays; !bytes.Equal(got, data) {
		t.Error("the reader that stayed read something else")
	}
	if n := src.Asked(file.Cid); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestLateReaderGetsItsOwnAttempt joins an attempt that fails.
func TestLateReaderGetsItsOwnAttempt(t *testing.T) {
	data := objectstest.Random(1, 5000)
	file, leaves := objectstest.NewFile(t, data)
	src := fetchtest.New(leaves...)
	var attempts atomic.Int32
	asked, fail := make(chan struct{}), make(chan struct{})
	src.SetHook(func(context.Context, cid.Cid) error {
		if attempts.Add(1) > 1 {
			return nil
		}
		close(asked)
		<-fail
		return errPeers
	})
	f, _ := newFetcher(t, src, time.Minute)
	first := make(chan error)
	go func() {
		_, err := f.ReadAt(t.Context(), file, make([]byte, 1), 0)
		first <- err
	}()
	<-asked
	before := f.Stats().Misses
	late := make(chan []byte)
	go func() { late <- readAll(t, f, file, 10_000) }()
	for f.Stats().Misses == before {
		// until the late reader has joined
	}
	close(fail)
	// The late reader's attempt may succeed before the first reader looks, which is then served.
	if err := <-first; err != nil && !errors.Is(err, errPeers) {
		t.Errorf("the first reader: %v", err)
	}
	if got := <-late; !bytes.Equal(got, data) {
		t.Error("the late reader read something else")
	}
}

// TestMissingLeavesHoldUpNoOthers: half of the files are nowhere, readers of the other
// half are served meanwhile.
func TestMissingLeavesHoldUpNoOthers(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	missing := make(map[cid.Cid]bool)
	src.SetHook(func(ctx context.Context, c cid.Cid) error {
		if missing[c] {
			return lost(ctx, c)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	var stuck []ipfs.File
	for i := range 40 {
		file, _ := objectstest.NewFile(t, objectstest.Random(int64(i), 1000))
		missing[file.Cid] = true
		stuck = append(stuck, file)
	}
	for _, file := range stuck {
		readers.Go(func() {
			if _, err := f.ReadAt(ctx, file, make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
				t.Errorf("read of a missing file: %v", err)
			}
		})
	}
	for i := range 40 {
		data := objectstest.Random(int64(1000+i), 1000)
		file, leaves := objectstest.NewFile(t, data)
		src.Add(leaves...)
		if !bytes.Equal(readAll(t, f, file, 1000), data) {
			t.Error("read differs")
		}
	}
	cancel()
	readers.Wait()
}

func TestDemandComesBeforeReadAhead(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	release := make(chan struct{})
	urgent, leaves := objectstest.NewFile(t, objectstest.Random(1, 1000))
	src.Add(leaves...)
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c != urgent.Cid {
			<-release
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range 10 { // more than is fetched ahead at once
		file, leaves := objectstest.NewFile(t, objectstest.Random(int64(10+i), 4*ipfs.LeafSize))
		src.Add(leaves...)
		wg.Go(func() {
			if err := f.Ensure(t.Context(), file); err != nil {
				t.Error(err)
			}
		})
	}
	if got := readAll(t, f, urgent, 1000); !bytes.Equal(got, leaves[0].Data) {
		t.Error("read differs")
	}
	close(release)
	wg.Wait()
}

func TestWrongBytesAreNotServed(t *testing.T) {
	file, leaves := objectstest.NewFile(t, objectstest.Random(1, 1000))
	src := fetchtest.New(ipfs.Block{Cid: leaves[0].Cid, Data: objectstest.Random(2, 1000)})
	f, s := newFetcher(t, src, time.Minute)
	if _, err := f.ReadAt(t.Context(), file, make([]byte, 1), 0); !errors.Is(err, ipfs.ErrHash) || s.HasFile(file) {
		t.Errorf("read of wrong bytes: %v", err)
	}
	src.Add(leaves...)
	if !bytes.Equal(readAll(t, f, file, 1000), leaves[0].Data) {
		t.Error("read differs")
	}
}

// TestSlowLink: a batch takes longer than the timeout, but its leaves keep coming.
func TestSlowLink(t *testing.T) {
	data := objectstest.Random(1, 8*ipfs.LeafSize)
	file, leaves := objectstest.NewFile(t, data)
	src := fetchtest.New(leaves...)
	src.SetHook(func(ctx context.Context, _ cid.Cid) error {
		timer := time.NewTimer(300 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	f, _ := newFetcher(t, src, time.Second)
	if err := f.Ensure(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if _, times, _ := src.Totals(); times != len(leaves) {
		t.Errorf("%d leaves were asked for %d times", len(leaves), times)
	}
}

func TestClose(t *testing.T) {
	file, leaves := objectstest.NewFile(t, objectstest.Random(1, 100*ipfs.LeafSize))
	src := fetchtest.New(leaves...)
	asked := make(chan struct{}, len(leaves))
	src.SetHook(func(ctx context.Context, c cid.Cid) error {
		asked <- struct{}{}
		return lost(ctx, c)
	})
	f, _ := newFetcher(t, src, time.Minute)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			_, err := f.ReadAt(t.Context(), file, make([]byte, 1), int64(i)*ipfs.LeafSize)
			if !errors.Is(err, fetch.ErrClosed) {
				t.Errorf("read while closing: %v", err)
			}
		})
		wg.Go(func() {
			if err := f.Ensure(t.Context(), file); !errors.Is(err, fetch.ErrClosed) {
				t.Errorf("Ensure while closing: %v", err)
			}
		})
	}
	<-asked
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := f.ReadAt(t.Context(), file, make([]byte, 1), 0); !errors.Is(err, fetch.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if n := f.Stats().InFlight; n != 0 {
		t.Errorf("%d leaves are still in flight", n)
	}
}
