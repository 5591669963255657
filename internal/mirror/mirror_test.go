package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/internal/blobs"
	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/mirror"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// A machine has a mirror, and all that it works on.
type machine struct {
	*mirror.Mirror
	content *content.Store
	objects *objects.Store
	node    *ipfstest.Memory // its peers' blocks
	peers   *peers
	public  *registry
}

// peers say what the test has them say.
type peers struct {
	mu    sync.Mutex
	said  map[string][]ipfs.File
	lies  int
	broke int
	asked int
	keys  []cid.Cid
}

func (p *peers) FindBlob(_ context.Context, digest string, key cid.Cid, fn func(string, ipfs.File) bool) {
	p.mu.Lock()
	said := p.said[digest]
	p.asked++
	p.keys = append(p.keys, key)
	p.mu.Unlock()
	for _, b := range said {
		if fn("somebody", b) {
			return
		}
	}
}

func (p *peers) Lied(context.Context, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lies++
}

func (p *peers) Broke(string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broke++
}

// registry gives blobs to anybody, or not.
type registry struct {
	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]bool
	whole     bool // it gives blobs as a whole only
	away      int  // so many requests fail first
}

func (r *registry) Range(_ context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away > 0 {
		r.away--
		return nil, origin.ErrAway
	}
	data, ok := r.blobs[d]
	if !ok {
		return nil, &origin.StatusError{Host: "registry", Code: http.StatusUnauthorized}
	}
	if r.whole && off > 0 {
		return nil, errors.ErrUnsupported
	}
	return io.NopCloser(bytes.NewReader(data[min(off, int64(len(data))):min(off+n, int64(len(data)))])), nil
}

func (r *registry) HasManifest(_ context.Context, d digest.Digest) (bool, error) {
	return r.manifests[d], nil
}

func open(t *testing.T, share mirror.Share) *machine {
	t.Helper()
	m := &machine{
		node: ipfstest.NewMemory(), peers: &peers{said: map[string][]ipfs.File{}},
		public: &registry{blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]bool{}},
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	closes := func(close func() error) {
		t.Cleanup(func() {
			if err := close(); err != nil {
				t.Error(err)
			}
		})
	}
	var err error
	dir := t.TempDir()
	m.objects, err = objects.Open(filepath.Join(dir, "repo"), objects.Options{})
	must(err)
	closes(m.objects.Close)
	fetcher := fetch.New(m.objects, m.node, fetch.Options{Timeout: 2 * time.Second})
	closes(fetcher.Close)
	m.Mirror, err = mirror.New(mirror.Options{
		Public: func(string) (mirror.Public, error) { return m.public, nil },
		Needs: func(c cid.Cid) (bool, error) {
			return m.objects.Needs(c, func(pin string) bool { return !content.IsPin(pin) })
		},
		Share: share,
	})
	must(err)
	kept := blobs.New(blobs.Options{Store: m.objects, Fetcher: fetcher, Nodes: m.node, Node: m.objects})
	closes(kept.Close)
	m.content, err = content.Open(t.Context(), filepath.Join(dir, "content"), kept, content.Options{Committed: m.Committed})
	must(err)
	closes(m.content.Close)
	m.Use(m.content, kept, m.peers)
	closes(m.Close)
	return m
}

// has gives a machine's peers a blob, and returns what they would say of it.
func (m *machine) has(t *testing.T, data []byte) (digest.Digest, ipfs.File) {
	t.Helper()
	f, leaves := objectstest.New(t, ipfs.LayoutBlob, data)
	if f.NumLeaves() > 1 {
		if _, err := f.Build(func(b ipfs.Block) error {
			leaves = append(leaves, b)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.node.Put(t.Context(), leaves...); err != nil {
		t.Fatal(err)
	}
	return digest.FromBytes(data), ipfs.File{Cid: f.Cid, Size: f.Size}
}

// say has the peers say what a blob is.
func (m *machine) say(d digest.Digest, said ...ipfs.File) {
	m.peers.mu.Lock()
	defer m.peers.mu.Unlock()
	m.peers.said[d.String()] = said
}

// get asks the mirror.
func (m *machine) get(path string, header http.Header) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	for name, values := range header {
		req.Header[name] = values
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, req)
	return w
}

// commit puts a blob into the machine's content store.
func (m *machine) commit(t *testing.T, data []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(data)
	if err := ctd.WriteBlob(t.Context(), m.content, "ref-"+d.String(), bytes.NewReader(data), ocispec.Descriptor{Digest: d, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	return d
}

// told says whether peers are told of a blob, soon.
func (m *machine) told(t *testing.T, d digest.Digest) bool {
	t.Helper()
	for range 100 {
		if _, ok := m.Lookup(t.Context(), d.String()); ok {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// TestFromPeers gets blobs of all sizes from peers, as a whole and in part.
func TestFromPeers(t *testing.T) {
	m := open(t, mirror.SharePublic)
	for i, n := range []int{1, 262144, 262145, 5<<20 + 3} {
		data := objectstest.Random(int64(i), n)
		d, b := m.has(t, data)
		m.say(d, b)
		path := "/v2/library/some/image/blobs/" + d.String() + "?ns=docker.io"
		w := m.get(path, http.Header{"Range": {"bytes=0-0"}})
		if w.Code != http.StatusPartialContent || !bytes.Equal(w.Body.Bytes(), data[:1]) {
			t.Errorf("the first of %d bytes: %d", n, w.Code)
		}
		w = m.get(path, nil)
		if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), data) || w.Header().Get("Docker-Content-Digest") != d.String() {
			t.Errorf("a blob of %d bytes: %d, %v", n, w.Code, w.Header())
		}
		// It is told to others only when it is this machine's.
		if _, ok := m.Lookup(t.Context(), d.String()); ok {
			t.Error("others are told of a blob that this machine may not keep")
		}
		m.commit(t, data)
		if !m.told(t, d) {
			t.Error("what came from peers is not given to peers")
		}
	}
	if m.peers.asked != 4 {
		t.Errorf("peers were asked %d times for 4 blobs", m.peers.asked)
	}
}

// TestManifests serves manifests as what they are; what is none is refused.
func TestManifests(t *testing.T) {
	m := open(t, mirror.SharePublic)
	for text, want := range map[string]string{
		`{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`: "application/vnd.docker.distribution.manifest.v2+json",
		`{"manifests":[]}`: ocispec.MediaTypeImageIndex,
		`{"config":{}}`:    ocispec.MediaTypeImageManifest,
		`{}`:               "", `no JSON`: "",
	} {
		d, b := m.has(t, []byte(text))
		m.say(d, b)
		w := m.get("/v2/image/manifests/"+d.String()+"?ns=docker.io", nil)
		if want == "" && w.Code != http.StatusNotFound || want != "" && (w.Header().Get("Content-Type") != want || w.Body.String() != text) {
			t.Errorf("%s: %d %s", text, w.Code, w.Header().Get("Content-Type"))
		}
	}
	for _, key := range m.peers.keys {
		if !key.Defined() {
			t.Error("peers that are not connected are not looked for")
		}
	}
	large := make([]byte, 5<<20)
	d, b := m.has(t, large)
	m.say(d, b)
	if w := m.get("/v2/image/manifests/"+d.String(), nil); w.Code != http.StatusNotFound || m.peers.lies > 0 {
		t.Errorf("a manifest of 5 MiB: %d", w.Code)
	}
}

// TestLies has peers say what is not so. Nothing of it is served, they are named, and the next is asked.
func TestLies(t *testing.T) {
	m := open(t, mirror.SharePublic)
	data, other := objectstest.Random(1, 600_000), objectstest.Random(2, 600_000)
	d, right := m.has(t, data)
	_, wrong := m.has(t, other)
	small, smallRight := m.has(t, []byte("small"))
	_, smallWrong := m.has(t, []byte("other"))
	shorter, longer := right, right
	shorter.Size--
	longer.Size++
	for name, lie := range map[string]ipfs.File{"another file": wrong, "a smaller size": shorter, "a larger size": longer, "many bytes": {Cid: right.Cid, Size: 1 << 40}} {
		m.peers.lies = 0
		m.say(d, lie)
		w := m.get("/v2/image/blobs/"+d.String(), nil)
		if w.Code != http.StatusNotFound || bytes.Contains(w.Body.Bytes(), other[:100]) {
			t.Errorf("%s: %d", name, w.Code)
		}
		if name != "many bytes" && m.peers.lies != 1 {
			t.Errorf("%s: %d lies were found", name, m.peers.lies)
		}
	}
	m.peers.lies = 0
	m.say(small, smallWrong, smallRight)
	if w := m.get("/v2/image/blobs/"+small.String(), nil); w.Code != http.StatusOK || w.Body.String() != "small" || m.peers.lies != 1 {
		t.Errorf("a lie, and then the truth: %d %q, %d lies", w.Code, w.Body.String(), m.peers.lies)
	}
	longer = smallRight
	longer.Size++
	m.say(small, longer, smallRight)
	if w := m.get("/v2/image/blobs/"+small.String(), nil); w.Code != http.StatusOK {
		t.Errorf("a wrong size, and then the right one: %d", w.Code)
	}
	m.say(d, longer, shorter, wrong, right)
	if w := m.get("/v2/image/blobs/"+d.String(), nil); w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), data) {
		t.Errorf("a lie, and then the truth: %d", w.Code)
	}
}

// TestGone has a peer that is gone before all has come: it is as if nobody had it.
func TestGone(t *testing.T) {
	m := open(t, mirror.SharePublic)
	d, b := m.has(t, objectstest.Random(1, 3<<20))
	m.say(d, b)
	m.node.Remove(m.node.Cids()[0])
	m.node.Remove(m.node.Cids()[3])
	if w := m.get("/v2/image/blobs/"+d.String(), nil); w.Code != http.StatusNotFound {
		t.Errorf("what nobody has any more: %d", w.Code)
	}
	if m.peers.lies > 0 || m.peers.broke != 1 {
		t.Errorf("a peer that is gone is taken for a liar %d times, and breaks its word %d times", m.peers.lies, m.peers.broke)
	}
}

// TestPaths asks for what a mirror does not have.
func TestPaths(t *testing.T) {
	m := open(t, mirror.SharePublic)
	for _, path := range []string{"/", "/v2/", "/v2/image/tags/list", "/v2/image/manifests/latest", "/v2/image/blobs/sha256:12", "/v1/image/blobs/" + digest.FromString("").String(), "/v2/manifests/" + digest.FromString("").String()} {
		if w := m.get(path, nil); w.Code != http.StatusNotFound || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if m.peers.asked > 0 {
		t.Error("peers were asked for what is no digest")
	}
	req := httptest.NewRequest(http.MethodPut, "/v2/image/blobs/"+digest.FromString("").String(), nil)
	w := httptest.NewRecorder()
	if m.ServeHTTP(w, req); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", w.Code)
	}
}
