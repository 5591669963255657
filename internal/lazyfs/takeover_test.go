package lazyfs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestTakeOver has readers wait for one server, and then another take its place: what they
// asked is answered, and so is what they read later from files that were open before.
func TestTakeOver(t *testing.T) {
	fx := mount(t, t.TempDir(), time.Minute)
	asked, release := make(chan struct{}, 100), make(chan struct{})
	fx.source.SetHook(func(context.Context, cid.Cid) error {
		asked <- struct{}{}
		<-release
		return nil
	})
	var readers sync.WaitGroup
	opened := make([]*os.File, 0, 8)
	for i := range 8 {
		data := objectstest.Random(int64(i), 3*ipfs.LeafSize+i)
		_, path := fx.add(t, data)
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		opened = append(opened, file)
		if i < 4 { // the others are read later
			readers.Go(func() {
				if err := readAll(file, data); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for range 4 {
		<-asked
	}
	old := fx.server
	fx.serve(t)
	err := old.Close() // what it had not answered it answers no more
	close(release)
	if err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	for i, file := range opened {
		if err := readAll(file, objectstest.Random(int64(i), 3*ipfs.LeafSize+i)); err != nil {
			t.Error(err)
		}
	}
	if s := fx.server.Stats(); s.Errors != 0 || s.Nodes != 8 {
		t.Errorf("Stats() = %+v", s)
	}
}

func readAll(file *os.File, want []byte) error {
	got := make([]byte, len(want))
	if n, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("read %d bytes, %v", n, err)
	}
	return nil
}
