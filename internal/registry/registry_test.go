package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/imagedir/imagedirtest"
	"github.com/hinshun/ipcs/internal/registry"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// serve serves what a node has, and what it gets.
func serve(t *testing.T, node registry.Node, opts registry.Options) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = registry.NewServer(node, opts)
	s.Listener = registry.Listener(s.Listener)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// A reply is what came of a request.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request; headers are given as name and value.
func ask(t *testing.T, s *httptest.Server, method, path string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, body}
}

// gives wants content by GET and HEAD.
func gives(t *testing.T, s *httptest.Server, path, mediaType string, d digest.Digest, data []byte) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r := ask(t, s, method, path)
		want := data
		if method == http.MethodHead {
			want = nil
		}
		if r.status != http.StatusOK || !bytes.Equal(r.body, want) || r.header.Get("Content-Type") != mediaType ||
			r.header.Get("Docker-Content-Digest") != d.String() || r.header.Get("Content-Length") != fmt.Sprint(len(data)) {
			t.Errorf("%s %s: %d, %v, %q; want %s, %q", method, path, r.status, r.header, r.body, mediaType, want)
		}
	}
}

// refuses wants an error, in the form of the specification.
func refuses(t *testing.T, s *httptest.Server, path string, status int, code string) {
	t.Helper()
	r := ask(t, s, http.MethodGet, path)
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(r.body, &body); err != nil || r.status != status || r.header.Get("Content-Type") != "application/json" ||
		len(body.Errors) != 1 || body.Errors[0].Code != code || body.Errors[0].Message == "" {
		t.Errorf("%s: %d, %q; want %d and %s", path, r.status, r.body, status, code)
	}
	if head := ask(t, s, http.MethodHead, path); head.status != status || len(head.body) != 0 {
		t.Errorf("HEAD %s: %d, %q; want %d", path, head.status, head.body, status)
	}
}

// names are those under which an image can be pulled.
func names(t *testing.T, made imagedirtest.Made) []string {
	t.Helper()
	c, err := mediatype.BlobCid(made.Top.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"/v2/ipfs/" + made.Root.String(), "/v2/ipfs/" + c.String()}
}

// TestPull asks for all of images, as clients do, under each name, of a node that has them and of
// one whose peer does.
func TestPull(t *testing.T) {
	for _, platforms := range [][]string{{"amd64"}, {"amd64", "arm64"}} {
		far := ipfstest.NewMemory()
		made := imagedirtest.Make(t, far, platforms...)
		near := ipfstest.NewMemory()
		near.Connect(far)
		for where, node := range map[string]*ipfstest.Memory{"here": far, "there": near} {
			t.Run(fmt.Sprint(where, len(platforms)), func(t *testing.T) {
				s := serve(t, node, registry.Options{})
				if r := ask(t, s, http.MethodGet, "/v2/"); r.status != http.StatusOK || string(r.body) != "{}" {
					t.Errorf("/v2/: %d, %q", r.status, r.body)
				}
				for _, name := range names(t, made) {
					gives(t, s, name+"/manifests/latest", made.Top.MediaType, made.Top.Digest, made.Data[made.Top.Digest])
					pullAll(t, s, name, made)
					for path, want := range map[string]string{
						"": `"tags":["latest"]`, "?last=k": `"tags":["latest"]`, "?last=latest": `"tags":[]`, "?n=0": `"tags":[]`, "?n=1": `"tags":["latest"]`,
					} {
						if r := ask(t, s, http.MethodGet, name+"/tags/list"+path); r.status != http.StatusOK || !strings.Contains(string(r.body), want) {
							t.Errorf("%s/tags/list%s: %d, %q", name, path, r.status, r.body)
						}
					}
				}
				gives(t, s, "/v2/ipfs/manifests/"+made.Top.Digest.String(), made.Top.MediaType, made.Top.Digest, made.Data[made.Top.Digest])
				pullAll(t, s, "/v2/ipfs", made)
			})
		}
		for c := range made.Data {
			id, err := mediatype.BlobCid(c)
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := near.Has(t.Context(), id); !ok || err != nil {
				t.Errorf("%s was served, and is not here for others: %v", c, err)
			}
		}
	}
}

// pullAll asks for manifests, and for what they name.
func pullAll(t *testing.T, s *httptest.Server, name string, made imagedirtest.Made) {
	t.Helper()
	for _, m := range made.Manifests {
		gives(t, s, name+"/manifests/"+m.Digest.String(), m.MediaType, m.Digest, made.Data[m.Digest])
	}
	for _, b := range slices.Concat(made.Configs, made.Layers) {
		gives(t, s, name+"/blobs/"+b.Digest.String(), "application/octet-stream", b.Digest, made.Data[b.Digest])
		if r := ask(t, s, http.MethodGet, name+"/manifests/"+b.Digest.String()); r.status != http.StatusNotFound {
			t.Errorf("blob %s as a manifest: %d, %q", b.Digest, r.status, r.body)
		}
	}
	r := ask(t, s, http.MethodGet, name+"/referrers/"+made.Top.Digest.String()+"?artifactType=x")
	var index ocispec.Index
	if err := json.Unmarshal(r.body, &index); err != nil || r.header.Get("Content-Type") != ocispec.MediaTypeImageIndex || r.header.Get("OCI-Filters-Applied") != "artifactType" ||
		index.MediaType != ocispec.MediaTypeImageIndex || index.SchemaVersion != 2 || index.Manifests == nil || len(index.Manifests) != 0 {
		t.Errorf("referrers: %v, %q, %v", r.header, r.body, err)
	}
}

// TestRanges asks for parts of a blob, and for one that the client has.
func TestRanges(t *testing.T) {
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64")
	s := serve(t, node, registry.Options{})
	d := made.Configs[0].Digest
	data, path := made.Data[d], "/v2/ipfs/"+made.Root.String()+"/blobs/"+d.String()
	for header, want := range map[string][]byte{"bytes=0-0": data[:1], "bytes=5-": data[5:], "bytes=-7": data[len(data)-7:]} {
		r := ask(t, s, http.MethodGet, path, "Range", header)
		if r.status != http.StatusPartialContent || !bytes.Equal(r.body, want) || !strings.HasSuffix(r.header.Get("Content-Range"), fmt.Sprintf("/%d", len(data))) {
			t.Errorf("%s: %d, %v, %q; want %q", header, r.status, r.header, r.body, want)
		}
	}
	if r := ask(t, s, http.MethodGet, path, "Range", fmt.Sprintf("bytes=%d-", len(data))); r.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("behind the end: %d", r.status)
	}
	if r := ask(t, s, http.MethodGet, path, "If-None-Match", `"`+d.String()+`"`); r.status != http.StatusNotModified || len(r.body) != 0 {
		t.Errorf("what the client has: %d, %q", r.status, r.body)
	}
}

// TestUnknown asks for what is not there, and for what is not of the image.
func TestUnknown(t *testing.T) {
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64")
	other := imagedirtest.Make(t, node, "arm64")
	s := serve(t, node, registry.Options{})
	nobody := digest.FromString("nobody")
	for _, name := range names(t, made) {
		refuses(t, s, name+"/manifests/other", http.StatusNotFound, "MANIFEST_UNKNOWN")
		for _, d := range []digest.Digest{other.Top.Digest, other.Configs[0].Digest, nobody, digest.SHA512.FromString("x")} {
			refuses(t, s, name+"/manifests/"+d.String(), http.StatusNotFound, "MANIFEST_UNKNOWN")
			refuses(t, s, name+"/blobs/"+d.String(), http.StatusNotFound, "BLOB_UNKNOWN")
		}
		refuses(t, s, name+"/blobs/sha256:1", http.StatusBadRequest, "DIGEST_INVALID")
		refuses(t, s, name+"/tags/list?n=x", http.StatusBadRequest, "UNSUPPORTED")
	}
	// In the repository of all, nobody has asked for a manifest yet.
	for d := range made.Data {
		refuses(t, s, "/v2/ipfs/blobs/"+d.String(), http.StatusNotFound, "BLOB_UNKNOWN")
	}
	refuses(t, s, "/v2/ipfs/manifests/latest", http.StatusNotFound, "MANIFEST_UNKNOWN")
	refuses(t, s, "/v2/ipfs/tags/list", http.StatusNotFound, "NAME_UNKNOWN")
	refuses(t, s, "/v2/ipfs/manifests/"+nobody.String(), http.StatusNotFound, "MANIFEST_UNKNOWN")
	refuses(t, s, "/v2/ipfs/manifests/"+made.Configs[0].Digest.String(), http.StatusNotFound, "NAME_UNKNOWN")
	refuses(t, s, "/v2/ipfs/manifests/"+digest.SHA512.FromString("x").String(), http.StatusNotFound, "MANIFEST_UNKNOWN")
	missing, err := mediatype.BlobCid(nobody)
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, s, "/v2/ipfs/"+missing.String()+"/manifests/latest", http.StatusNotFound, "MANIFEST_UNKNOWN")
	refuses(t, s, "/v2/ipfs/"+made.Layers[0].Annotations[mediatype.AnnotationRoot]+"/manifests/latest", http.StatusNotFound, "NAME_UNKNOWN")
}

// TestReadOnly tries to write.
func TestReadOnly(t *testing.T) {
	s := serve(t, ipfstest.NewMemory(), registry.Options{})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		r := ask(t, s, method, "/v2/ipfs/x/blobs/uploads/")
		if r.status != http.StatusMethodNotAllowed || r.header.Get("Allow") != "GET, HEAD" || !strings.Contains(string(r.body), "UNSUPPORTED") {
			t.Errorf("%s: %d, %v, %q", method, r.status, r.header, r.body)
		}
	}
}

// TestInterruptedPull has a client that got an index's manifest from us before we were started
// again: it asks for the index and then for the config.
func TestInterruptedPull(t *testing.T) {
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64", "arm64")
	s := serve(t, node, registry.Options{Timeout: time.Minute})
	refuses(t, s, "/v2/ipfs/blobs/"+made.Configs[1].Digest.String(), http.StatusNotFound, "BLOB_UNKNOWN")
	if r := ask(t, s, http.MethodHead, "/v2/ipfs/manifests/"+made.Top.Digest.String()); r.status != http.StatusOK {
		t.Fatal(r.status)
	}
	for i, d := range made.Configs {
		gives(t, s, "/v2/ipfs/blobs/"+d.Digest.String(), "application/octet-stream", d.Digest, made.Data[d.Digest])
		l := made.Layers[i].Digest
		gives(t, s, "/v2/ipfs/blobs/"+l.String(), "application/octet-stream", l, made.Data[l])
	}
}
