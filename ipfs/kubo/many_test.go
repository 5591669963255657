package kubo_test

import (
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// A fewBytes breaks an answer off.
type fewBytes struct {
	http.ResponseWriter
	left int
}

func (f *fewBytes) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return f.ResponseWriter.Write(p)
}

// TestFetchMany delivers each block once, whatever the daemon makes of the command that
// Kubo does not have.
func TestFetchMany(t *testing.T) {
	blocks := ipfstest.Blocks(t, 300, 1000)
	node := ipfstest.NewMemory()
	if err := node.Put(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
	h := kubo.NewHandler(node, identity{}, nil)
	for name, tc := range map[string]struct {
		many  func(w http.ResponseWriter, r *http.Request) // what blocks/get does
		calls int                                          // of the node's Get
	}{
		"known":      {h.ServeHTTP, 0},
		"unknown":    {http.NotFound, 300},
		"broken off": {func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&fewBytes{w, 1500}, r) }, 300},
		"others": {func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			for i := range q["arg"] {
				q["arg"][i] = blocks[i].Cid.String()
			}
			r.URL.RawQuery = q.Encode()
			h.ServeHTTP(w, r)
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, serveUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/blocks/get") {
					tc.many(w, r)
					return
				}
				h.ServeHTTP(w, r)
			})))
			before, got := node.Counts().Gets, map[cid.Cid]int{}
			err := c.Fetch(t.Context(), ipfstest.Cids(blocks), func(b ipfs.Block) error {
				got[b.Cid]++
				return ipfs.Verify(b.Cid, b.Data)
			})
			want := map[cid.Cid]int{}
			for _, b := range blocks {
				want[b.Cid] = 1
			}
			if tc.calls < 0 { // a daemon that leaves out what it was asked for does not have it
				if !errors.Is(err, ipfs.ErrNotFound) || len(got) != 64 {
					t.Errorf("%v, %d blocks", err, len(got))
				}
				return
			}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("%v, %d blocks", err, len(got))
			}
			if calls := node.Counts().Gets - before; calls != tc.calls {
				t.Errorf("%d blocks were asked for one by one, want %d", calls, tc.calls)
			}
		})
	}
}
