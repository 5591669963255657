package origin

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestElsewhere sends whoever asks a registry on to a server on this host: only one on this host may do that, and the server is shown no
// certificate that is for the registry.
func TestElsewhere(t *testing.T) {
	var shown []*x509.Certificate
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown = r.TLS.PeerCertificates }))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	base := server.Client().Transport.(*http.Transport).Clone()
	base.TLSClientConfig.Certificates = server.TLS.Certificates
	ask := func(rt http.RoundTripper) error {
		shown = nil
		resp, err := (&http.Client{Transport: rt}).Get(server.URL)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	if err := ask(base); err != nil || len(shown) != 1 {
		t.Fatalf("the server is shown %d certificates by who has one: %v", len(shown), err)
	}
	for _, host := range []string{"127.0.0.1:5000", "localhost:5000", "[::1]:5000", "registry.localhost"} {
		if err := ask(elsewhere(base, host).Transport); err != nil || len(shown) > 0 {
			t.Errorf("%s, on this host, sends there: %v, and %d certificates are shown", host, err, len(shown))
		}
	}
	for _, host := range []string{"registry.example.com", "10.0.0.1:5000", "localhost.example.com", "docker.io"} {
		if err := ask(elsewhere(base, host).Transport); err == nil || !strings.Contains(err.Error(), "of this host") {
			t.Errorf("%s, elsewhere, sends there: %v", host, err)
		}
	}
}

// TestGuardProxy has a proxy lead there: that is the proxy's matter.
func TestGuardProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "registry.example.com" {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: guarded(&http.Transport{Proxy: http.ProxyURL(at)})}
	resp, err := client.Get("http://registry.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s, %v", resp.Status, err)
	}
}
