package fetch_test

import (
	"bytes"
	"errors"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestReadsWhileAllIsFreed reads files, whole and in part, that are freed all the time, whether
// complete or not: a read may give up, but never shows a wrong byte, and works afterwards.
func TestReadsWhileAllIsFreed(t *testing.T) {
	var files []ipfs.File
	var content [][]byte
	var all []ipfs.Block
	var cids []cid.Cid
	for i, size := range []int{1000, 3*ipfs.LeafSize + 7, 12 * ipfs.LeafSize} {
		data := objectstest.Random(int64(i), size)
		file, leaves := objectstest.NewFile(t, data)
		files, content, all, cids = append(files, file), append(content, data), append(all, leaves...), append(cids, file.Cid)
	}
	f, s := newFetcher(t, fetchtest.New(all...), time.Minute)
	s.Limit(1<<40, nil)
	stop := make(chan struct{})
	var freeing, reading sync.WaitGroup
	freeing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Free(t.Context(), cids, time.Now()); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range int64(4) {
		reading.Go(func() {
			rnd := rand.New(rand.NewSource(n))
			got := make([]byte, 5000)
			for range 150 {
				i := rnd.Intn(len(files))
				off := rnd.Int63n(files[i].Size)
				k, err := f.ReadAt(t.Context(), files[i], got, off)
				if k > 0 && !bytes.Equal(got[:k], content[i][off:][:k]) {
					t.Errorf("file %d at %d: wrong bytes", i, off)
				}
				if k == 0 && !errors.Is(err, objects.ErrEvicted) && !errors.Is(err, objects.ErrMissing) {
					t.Errorf("file %d at %d: %v", i, off, err)
				}
			}
		})
	}
	reading.Wait()
	close(stop)
	freeing.Wait()
	for i, file := range files {
		if !bytes.Equal(readAll(t, f, file, 100_000), content[i]) {
			t.Errorf("file %d differs at the end", i)
		}
	}
}
