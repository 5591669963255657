package origin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
)

// A fakeRegistry wants a token, which its own token server gives to user and secret, and sends whoever wants a blob
// to an object store, which must be told nothing of that.
type fakeRegistry struct {
	*httptest.Server
	store *httptest.Server
	blobs map[digest.Digest][]byte

	mu        sync.Mutex
	expires   string // what is in the URLs of the store
	revoked   bool   // the store refuses the URLs it was given
	busy      int    // requests that are answered with 429
	noRanges  bool
	direct    bool // blobs are given by the registry itself
	asked     int  // requests for blobs at the registry
	served    int  // and at the store
	leaked    []string
	namespace string // that a mirror is told
}

func newFakeRegistry(t *testing.T, blobs map[digest.Digest][]byte) *fakeRegistry {
	r := &fakeRegistry{blobs: blobs}
	r.Server = httptest.NewServer(http.HandlerFunc(r.registry))
	r.store = httptest.NewServer(http.HandlerFunc(r.objects))
	t.Cleanup(r.Close)
	t.Cleanup(r.store.Close)
	return r
}

func (r *fakeRegistry) host() string { return strings.TrimPrefix(r.URL, "http://") }

func (r *fakeRegistry) registry(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.URL.Path == "/token" {
		if user, secret, _ := req.BasicAuth(); user != "user" || secret != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"token":"token for %s"}`, req.URL.Query().Get("scope"))
		return
	}
	if req.Header.Get("Authorization") != "Bearer token for repository:team/app:pull" {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry",scope="repository:team/app:pull"`, r.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.asked++
	r.namespace = req.URL.Query().Get("ns")
	if r.busy > 0 {
		r.busy--
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	d := digest.Digest(strings.TrimPrefix(req.URL.Path, "/v2/team/app/blobs/"))
	if r.direct {
		r.blob(w, req, d)
		return
	}
	http.Redirect(w, req, r.store.URL+"/"+string(d)+"?signature=hidden&"+r.expires, http.StatusTemporaryRedirect)
}

func (r *fakeRegistry) objects(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := req.Header.Get("Authorization"); h != "" {
		r.leaked = append(r.leaked, h)
	}
	r.served++
	if r.revoked {
		r.revoked = false
		w.WriteHeader(http.StatusForbidden)
		return
	}
	r.blob(w, req, digest.Digest(req.URL.Path[1:]))
}

func (r *fakeRegistry) blob(w http.ResponseWriter, req *http.Request, d digest.Digest) {
	data, ok := r.blobs[d]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.noRanges {
		req.Header.Del("Range")
	}
	http.ServeContent(w, req, "", time.Time{}, strings.NewReader(string(data)))
}

// counts returns what was asked of registry and store since the last call.
func (r *fakeRegistry) counts() (asked, served int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked, served, r.asked, r.served = r.asked, r.served, 0, 0
	return asked, served
}

func (r *fakeRegistry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func newRegistry(hostsDir string) origin.Registries {
	return origin.Registries{HostsDir: hostsDir, Credentials: func(string, string) (string, string, error) { return "user", "secret", nil }}
}

func open(t *testing.T, r origin.Registries, name string) origin.Place {
	t.Helper()
	p, err := r.Repository(name, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readRange(t *testing.T, p origin.Place, d digest.Digest, off, n int64) (string, error) {
	t.Helper()
	body, err := p.Range(t.Context(), d, off, n)
	if err != nil {
		return "", err
	}
	defer body.Close()
	if n >= 0 {
		body = io.NopCloser(io.LimitReader(body, n))
	}
	b, err := io.ReadAll(body)
	return string(b), err
}

func wantRange(t *testing.T, p origin.Place, d digest.Digest, off, n int64, want string) {
	t.Helper()
	if got, err := readRange(t, p, d, off, n); err != nil || got != want {
		t.Errorf("[%d:%d] is %q, %v; want %q", off, n, got, err, want)
	}
}

// TestRegistry reads ranges with a token, and through redirects, which are remembered as long as they hold.
func TestRegistry(t *testing.T) {
	const text = "0123456789"
	d := digest.FromString(text)
	reg := newFakeRegistry(t, map[digest.Digest][]byte{d: []byte(text)})
	p := open(t, newRegistry(""), reg.host()+"/team/app")
	wantRange(t, p, d, 2, 3, "234")
	wantRange(t, p, d, 0, -1, text)
	wantRange(t, p, d, 9, 1, "9")
	if asked, served := reg.counts(); asked != 1 || served != 3 {
		t.Errorf("the registry was asked %d times, the store %d times", asked, served)
	}
	reg.set(func() { reg.revoked = true })
	wantRange(t, p, d, 2, 3, "234")
	if asked, served := reg.counts(); asked != 1 || served != 2 {
		t.Errorf("once the URL is refused, the registry was asked %d times, the store %d times", asked, served)
	}
	// URLs that say that they do not hold for long are not used again.
	long := time.Now().Add(time.Hour)
	for query, again := range map[string]int{
		"X-Amz-Date=" + time.Now().UTC().Format("20060102T150405Z") + "&X-Amz-Expires=5":      2,
		"X-Goog-Date=" + time.Now().UTC().Format("20060102T150405Z") + "&X-Goog-Expires=3600": 1,
		"se=" + long.UTC().Format(time.RFC3339):                                               1,
		fmt.Sprintf("Expires=%d", time.Now().Unix()):                                          2,
		fmt.Sprintf("Expires=%d", long.Unix()):                                                1,
	} {
		reg.set(func() { reg.expires = query })
		p := open(t, newRegistry(""), reg.host()+"/team/app")
		reg.counts()
		wantRange(t, p, d, 2, 3, "234")
		wantRange(t, p, d, 3, 3, "345")
		if asked, _ := reg.counts(); asked != again {
			t.Errorf("%s: the registry was asked %d times, want %d", query, asked, again)
		}
	}
	if len(reg.leaked) > 0 {
		t.Errorf("the store was told %q", reg.leaked)
	}
}

// TestRegistryFails has a registry be busy, refuse, have no blob, no ranges, and not be there.
func TestRegistryFails(t *testing.T) {
	const text = "0123456789"
	d := digest.FromString(text)
	reg := newFakeRegistry(t, map[digest.Digest][]byte{d: []byte(text)})
	reg.direct, reg.busy = true, 2
	p := open(t, newRegistry(""), reg.host()+"/team/app")
	wantRange(t, p, d, 2, 3, "234")
	var status *origin.StatusError
	if _, err := readRange(t, p, digest.FromString("nowhere"), 0, 1); !errors.As(err, &status) || status.Code != http.StatusNotFound {
		t.Errorf("no blob: %v", err)
	}
	reg.set(func() { reg.noRanges = true })
	if _, err := readRange(t, p, d, 2, 3); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no ranges: %v", err)
	}
	wantRange(t, p, d, 0, 3, "012") // of which no more is read than this
	stranger := open(t, origin.Registries{Credentials: func(string, string) (string, string, error) { return "user", "wrong", nil }}, reg.host()+"/team/app")
	if _, err := readRange(t, stranger, d, 0, 1); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong credentials: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Range(ctx, d, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	reg.Close()
	if _, err := readRange(t, p, d, 0, 1); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no registry: %v", err)
	}
}

// TestMirror reads from a mirror that hosts.toml names, and from the registry what the mirror has not.
func TestMirror(t *testing.T) {
	a, b := digest.FromString("both"), digest.FromString("upstream")
	upstream := newFakeRegistry(t, map[digest.Digest][]byte{a: []byte("both"), b: []byte("upstream")})
	mirror := newFakeRegistry(t, map[digest.Digest][]byte{a: []byte("both")})
	upstream.direct, mirror.direct = true, true
	dir := t.TempDir()
	folder := filepath.Join(dir, strings.ReplaceAll(upstream.host(), ":", "_")+"_")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\"]\n", upstream.URL, mirror.URL)
	if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, newRegistry(dir), upstream.host()+"/team/app")
	wantRange(t, p, a, 0, 4, "both")
	if asked, _ := upstream.counts(); asked != 0 {
		t.Error("the registry was asked before its mirror")
	}
	if mirror.namespace != upstream.host() {
		t.Errorf("the mirror is asked as that of %q", mirror.namespace)
	}
	wantRange(t, p, b, 0, 8, "upstream")
}

// TestRepositoryNames refuses what names no repository.
func TestRepositoryNames(t *testing.T) {
	for _, name := range []string{"", "app", "registry.example.com", "registry.example.com/app:tag", "registry.example.com/APP", "https://registry.example.com/app", "../app"} {
		if _, err := newRegistry("").Repository(name, false); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// TestLayouts reads from a folder, and from that folder on a web server.
func TestLayouts(t *testing.T) {
	im := origintest.NewImage(t, 2, 30, 20<<10)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	for d, data := range im.Blobs {
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.StripPrefix("/images/", http.FileServer(http.Dir(dir))))
	t.Cleanup(server.Close)
	for _, where := range []string{dir, server.URL + "/images", server.URL + "/images/"} {
		place, err := origin.Layout(where)
		if err != nil {
			t.Fatal(err)
		}
		o, err := origin.New(origin.Options{Always: []origin.Place{place}})
		if err != nil {
			t.Fatal(err)
		}
		o.Located(im.Record)
		if _, err := o.Get(t.Context(), im.Record); err != nil {
			t.Errorf("%s: record: %v", where, err)
		}
		o.Recorded(im.Record, im.Image)
		for _, l := range im.Layers {
			fetchAll(t, o, l)
		}
		if _, err := place.Range(t.Context(), "sha256:../../etc/passwd", 0, 1); err == nil {
			t.Errorf("%s: a digest that is a path is taken", where)
		}
	}
	for _, where := range []string{"", "relative", "ftp://example.com/x", "https://"} {
		if _, err := origin.Layout(where); err == nil {
			t.Errorf("%q is taken", where)
		}
	}
}

// TestClaimedRepository has an image claim to be on this host, by name, and by a name that leads here.
func TestClaimedRepository(t *testing.T) {
	r := newFakeRegistry(t, nil)
	registries := newRegistry("")
	for _, host := range []string{r.host(), "localhost:5000", "[::1]:5000", "169.254.169.254", "a.localhost"} {
		if p, err := registries.Repository(host+"/team/app", true); err == nil {
			t.Errorf("%s is taken for a place", p)
		}
	}
	// A mirror that is configured for all registries is not meant for what anybody names.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "_default"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "_default", "hosts.toml"), []byte("server = \""+r.URL+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := newRegistry(dir).Repository("registry.example.com/team/app", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readRange(t, p, digest.FromString("x"), 0, 1); err == nil || !strings.Contains(err.Error(), "of this host") {
		t.Errorf("a claim leads to this host: %v", err)
	}
	if asked, _ := r.counts(); asked > 0 {
		t.Errorf("the registry is asked %d times", asked)
	}
}
