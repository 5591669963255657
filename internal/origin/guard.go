package origin

import (
	"net"
	"net/http"

	"github.com/hinshun/ipcs/internal/thishost"
)

// guarded returns a transport like t that leads nowhere on this host or its link, whatever names resolve to, but through a proxy
// that this process is told of: that is the site's, and so is what it lets through.
func guarded(t *http.Transport) http.RoundTripper {
	direct := t.Clone()
	direct.Proxy = nil
	direct.DialContext = (&net.Dialer{Timeout: dialTimeout, Control: thishost.Refuse}).DialContext
	return &guard{direct: direct, proxied: t}
}

type guard struct{ direct, proxied *http.Transport }

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if g.proxied.Proxy == nil {
		return g.direct.RoundTrip(req)
	}
	via, err := g.proxied.Proxy(req)
	if err != nil || via != nil {
		return g.proxied.RoundTrip(req)
	}
	return g.direct.RoundTrip(req)
}

// CloseIdleConnections is what http.Client calls.
func (g *guard) CloseIdleConnections() {
	g.direct.CloseIdleConnections()
	g.proxied.CloseIdleConnections()
}

// elsewhere returns the client for where a registry or web server at host sends whoever asks it, given the transport for that: it shows no
// certificate that is for the server, and leads to this host only from this host.
func elsewhere(t *http.Transport, host string) *http.Client {
	to := t.Clone()
	if to.TLSClientConfig != nil {
		to.TLSClientConfig.Certificates, to.TLSClientConfig.GetClientCertificate = nil, nil
	}
	if isLocal(host) {
		return &http.Client{Transport: patient(to)}
	}
	return &http.Client{Transport: patient(guarded(to))}
}
