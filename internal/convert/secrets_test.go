package convert

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSignedURLIsNotShown has a registry that sends clients to a URL which is a secret,
// where they are refused or hung up on.
func TestSignedURLIsNotShown(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"refused": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"hung up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			mux := http.NewServeMux()
			mux.HandleFunc("/signed", answer)
			mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/signed?Signature=s3cret", http.StatusTemporaryRedirect)
			})
			srv := httptest.NewServer(mux)
			defer srv.Close()
			r, err := Access{}.openRegistry(strings.TrimPrefix(srv.URL, "http://") + "/a:1")
			if err != nil {
				t.Fatal(err)
			}
			r.client.Client = srv.Client() // no retries
			data := []byte("x")
			_, err = r.Fetch(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: 1})
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("Fetch = %v", err)
			}
			t.Log(err)
		})
	}
}
