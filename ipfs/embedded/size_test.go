package embedded_test

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestBlockSizeSaysHowMany asks for small blocks: as long as their size is not known, they may be
// large, and few are asked for at a time.
func TestBlockSizeSaysHowMany(t *testing.T) {
	var cids []cid.Cid
	for _, b := range ipfstest.Blocks(t, 300, 1000) {
		cids = append(cids, b.Cid)
	}
	for size, want := range map[int64]int{0: 96, 1000: 300} {
		n := open(t, embedded.Config{Timeout: time.Hour}, ipfstest.NewMemory())
		ctx, cancel := context.WithCancel(ipfs.WithBlockSize(t.Context(), size))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = n.Fetch(ctx, cids, func(ipfs.Block) error { return nil })
		}()
		eventually(t, "asking for blocks", func() bool { return embedded.Wanted(n) == want })
		cancel()
		<-ended
	}
}
