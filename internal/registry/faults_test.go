package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/imagedir/imagedirtest"
	"github.com/hinshun/ipcs/internal/registry"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// TestNothingElseIsStored asks for what peers have, and is no image: whoever can connect must not
// be able to fill the disk with it.
func TestNothingElseIsStored(t *testing.T) {
	far := ipfstest.NewMemory()
	made := imagedirtest.Make(t, far, "amd64")
	near := ipfstest.NewMemory()
	near.Connect(far)
	s := serve(t, near, registry.Options{})
	manifests := 0 // the root, the manifest, and index.json, which is an index
	for _, c := range far.Cids() {
		if r := ask(t, serve(t, far, registry.Options{}), http.MethodGet, "/v2/ipfs/"+c.String()+"/tags/list"); r.status == http.StatusOK {
			manifests++
		} else {
			refuses(t, s, "/v2/ipfs/"+c.String()+"/manifests/latest", http.StatusNotFound, "NAME_UNKNOWN")
			refuses(t, s, "/v2/ipfs/"+c.String()+"/tags/list", http.StatusNotFound, "NAME_UNKNOWN")
		}
	}
	if manifests != 3 {
		t.Errorf("%d of the blocks are images", manifests)
	}
	for _, d := range []digest.Digest{made.Configs[0].Digest, made.Layers[0].Digest} {
		refuses(t, s, "/v2/ipfs/manifests/"+d.String(), http.StatusNotFound, "NAME_UNKNOWN")
		refuses(t, s, "/v2/ipfs/blobs/"+d.String(), http.StatusNotFound, "BLOB_UNKNOWN")
		refuses(t, s, "/v2/ipfs/"+made.Root.String()+"/manifests/"+d.String(), http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
	if n := near.Len(); n != 0 {
		t.Errorf("%d blocks are stored", n)
	}
}

func blobCid(t *testing.T, d digest.Digest) cid.Cid {
	t.Helper()
	c, err := mediatype.BlobCid(d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWrongBytes serves nothing of a peer, or of a disk, that has wrong bytes.
func TestWrongBytes(t *testing.T) {
	far := ipfstest.NewMemory()
	made := imagedirtest.Make(t, far, "amd64")
	config := blobCid(t, made.Configs[0].Digest)
	far.Corrupt(config)
	near := ipfstest.NewMemory()
	near.Connect(far)
	path := "/v2/ipfs/" + made.Root.String() + "/blobs/" + made.Configs[0].Digest.String()
	refuses(t, serve(t, near, registry.Options{}), path, http.StatusNotFound, "BLOB_UNKNOWN")
	refuses(t, serve(t, far, registry.Options{}), path, http.StatusInternalServerError, "UNKNOWN")
}

// TestFaults has a node that fails.
func TestFaults(t *testing.T) {
	broken := errors.New("disk on fire")
	far := ipfstest.NewMemory()
	made := imagedirtest.Make(t, far, "amd64", "arm64")
	top := made.Top.Digest
	for op, status := range map[string]int{"has": http.StatusInternalServerError, "fetch": http.StatusInternalServerError, "put": http.StatusOK} {
		near := ipfstest.NewMemory()
		near.Connect(far)
		near.SetFault(func(did string, _ cid.Cid) error {
			if did == op {
				return broken
			}
			return nil
		})
		s := serve(t, near, registry.Options{})
		for _, path := range []string{"/v2/ipfs/" + made.Root.String() + "/manifests/latest", "/v2/ipfs/manifests/" + top.String()} {
			if r := ask(t, s, http.MethodGet, path); r.status != status {
				t.Errorf("%s fails: %d, %q; want %d", op, r.status, r.body, status)
			}
		}
	}
}

// A silent node has nothing, and peers that say nothing.
type silent struct {
	mu      sync.Mutex
	waiting int
	most    int
	known   *ipfstest.Memory
}

func (s *silent) Has(ctx context.Context, c cid.Cid) (bool, error) { return s.known.Has(ctx, c) }
func (s *silent) Cache(ctx context.Context, blocks ...ipfs.Block) error {
	return s.known.Cache(ctx, blocks...)
}
func (s *silent) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting += n
	s.most = max(s.most, s.waiting)
}

func (s *silent) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		if ok, err := s.known.Has(ctx, c); err != nil || ok {
			continue
		}
		s.count(1)
		defer s.count(-1)
		<-ctx.Done()
		return fmt.Errorf("fetch %s: %w", c, ctx.Err())
	}
	return s.known.Fetch(ctx, cids, fn)
}

// TestManyWait asks for much that nobody has. What is here is served all the same, and no more
// wait for peers than may.
func TestManyWait(t *testing.T) {
	node := &silent{known: ipfstest.NewMemory()}
	made := imagedirtest.Make(t, node.known, "amd64")
	s := serve(t, node, registry.Options{Timeout: 3 * time.Second})
	const clients = registry.MaxFetching + 20
	statuses := make([]int, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := blobCid(t, digest.FromString(fmt.Sprint(i)))
			statuses[i] = ask(t, s, http.MethodGet, "/v2/ipfs/"+c.String()+"/manifests/latest").status
		})
	}
	for node.now() < registry.MaxFetching {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	gives(t, s, "/v2/ipfs/"+made.Root.String()+"/manifests/latest", made.Top.MediaType, made.Top.Digest, made.Data[made.Top.Digest])
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("what is here took %v", d)
	}
	wg.Wait()
	got := map[int]int{}
	for _, status := range statuses {
		got[status]++
	}
	if node.most != registry.MaxFetching || got[http.StatusNotFound] < registry.MaxFetching || got[http.StatusNotFound]+got[http.StatusTooManyRequests] != clients {
		t.Errorf("%d waited at once, the answers were %v", node.most, got)
	}
}

// now is how many wait.
func (s *silent) now() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// TestForgets finds that what is asked for by digest alone is not remembered for ever.
func TestForgets(t *testing.T) {
	node := ipfstest.NewMemory()
	first := imagedirtest.Make(t, node, "first")
	s := serve(t, node, registry.Options{})
	manifest := func(d digest.Digest) {
		if r := ask(t, s, http.MethodGet, "/v2/ipfs/manifests/"+d.String()); r.status != http.StatusOK {
			t.Fatalf("%s: %d", d, r.status)
		}
	}
	manifest(first.Top.Digest)
	path := "/v2/ipfs/blobs/" + first.Configs[0].Digest.String()
	for i := range registry.MaxRecent {
		gives(t, s, path, "application/octet-stream", first.Configs[0].Digest, first.Data[first.Configs[0].Digest])
		manifest(imagedirtest.Make(t, node, fmt.Sprint("other", i)).Top.Digest)
	}
	refuses(t, s, path, http.StatusNotFound, "BLOB_UNKNOWN")
}
