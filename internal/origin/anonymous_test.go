package origin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/origin"
)

// guarded is a registry that gives what it has to who has a token, and a token to who knows a secret; what is public it gives to all.
type guarded struct {
	url     string
	data    []byte
	secrets int // requests that had the secret
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Secret") != "" {
		g.secrets++
	}
	switch {
	case r.URL.Path == "/token":
		token := "nobody's"
		if r.Header.Get("X-Secret") != "" {
			token = "ours"
		}
		fmt.Fprintf(w, `{"token":%q}`, token)
	case !strings.HasPrefix(r.URL.Path, "/v2/public/") && r.Header.Get("Authorization") != "Bearer ours":
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="here"`, g.url))
		w.WriteHeader(http.StatusUnauthorized)
	default:
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(g.data).String())
		_, _ = w.Write(g.data)
	}
}

// TestPublic has a registry whose hosts.toml has a header that opens it, and a mirror that gives everything: a stranger has neither.
func TestPublic(t *testing.T) {
	g := &guarded{data: []byte("a config")}
	server := httptest.NewServer(g)
	defer server.Close()
	g.url = server.URL
	asked := 0
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(g.data).String())
		_, _ = w.Write(g.data)
	}))
	defer mirror.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	folder := filepath.Join(dir, strings.Replace(host, ":", "_", 1)+"_")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = %q\n[header]\nX-Secret = [\"open\"]\n[host.%q]\ncapabilities = [\"pull\"]\n[host.%q]\ncapabilities = [\"pull\"]\n[host.%q.header]\nX-Secret = [\"open\"]\n", server.URL, mirror.URL, server.URL, server.URL)
	if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	registries := origin.Registries{HostsDir: dir, Credentials: func(string, string) (string, string, error) { return "somebody", "secret", nil }}
	for name, public := range map[string]bool{"public": true, "private": false} {
		place, err := registries.Public(host + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(g.data)
		if has, err := place.HasManifest(t.Context(), d); has != public {
			t.Errorf("%s: it has the manifest: %v, %v", name, has, err)
		}
		body, err := place.Range(t.Context(), d, 0, 3)
		if (err == nil) != public {
			t.Errorf("%s: reading: %v", name, err)
		}
		if err == nil {
			if got, err := io.ReadAll(io.LimitReader(body, 3)); err != nil || string(got) != "a c" {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			body.Close()
		}
		if has, err := place.HasManifest(t.Context(), digest.FromString("another")); has {
			t.Errorf("%s: it has what it says is another: %v", name, err)
		}
	}
	if g.secrets > 0 || asked > 0 {
		t.Errorf("%d requests had the secret, %d went to a mirror", g.secrets, asked)
	}
}
