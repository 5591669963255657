package fetch_test

import (
	"bytes"
	"context"
	"iter"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestNeighboursFromAfar: where each read takes long, it brings small files beside the one that
// is read, and no large one.
func TestNeighboursFromAfar(t *testing.T) {
	const reads = 8
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	var files []ipfs.File
	var contents [][]byte
	for i := range reads + 20 {
		data := objectstest.Random(int64(i), 1000)
		if i == reads+10 {
			data = objectstest.Random(int64(i), 100_000)
		}
		file, leaves := objectstest.NewFile(t, data)
		src.Add(leaves...)
		files, contents = append(files, file), append(contents, data)
	}
	large := files[reads+10]
	src.SetHook(func(context.Context, cid.Cid) error {
		time.Sleep(10 * time.Millisecond) // the way is so long
		return nil
	})
	f.SetNeighbours(func(ipfs.File) iter.Seq[ipfs.File] {
		return func(yield func(ipfs.File) bool) {
			for _, file := range files[reads+1:] {
				if !yield(file) {
					return
				}
			}
		}
	})
	for i := range reads + 1 { // by the last, it is known
		if got := readAll(t, f, files[i], len(contents[i])); !bytes.Equal(got, contents[i]) {
			t.Fatalf("file %d is another", i)
		}
	}
	for _, file := range files[reads+1:] {
		for file.Cid != large.Cid && !s.HasFile(file) {
			select {
			case <-t.Context().Done():
				t.Fatal("a neighbour does not come")
			case <-time.After(time.Millisecond):
			}
		}
	}
	if s.HasFile(large) {
		t.Error("a large neighbour came")
	}
}
