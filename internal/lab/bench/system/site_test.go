package system_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// published returns a site of a lab with an image for ipcs.
func published(t *testing.T, l *lab.Lab) (*system.Site, system.System, *system.Image) {
	t.Helper()
	site, err := system.NewSite(t.Context(), l, func(_ context.Context, image string) (string, error) {
		return labtest.Image(t, image), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ipcs, err := system.Named("ipcs")
	if err != nil {
		t.Fatal(err)
	}
	img, err := ipcs.Publish(t.Context(), site, system.Source{Image: "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	return site, ipcs, img
}

// TestDelayed finds that the registry and the peer of a delayed image answer, and no
// sooner than after the round trip.
func TestDelayed(t *testing.T) {
	labtest.Build(t)
	const rtt = 20 * time.Millisecond
	ctx := t.Context()
	l := labtest.Open(t, "delayed", 1000)
	site, _, img := published(t, l)
	consumer := labtest.Machine(t, l, "consumer")
	far, err := site.Delayed(ctx, consumer, img, rtt)
	if err != nil {
		t.Fatal(err)
	}
	again, err := site.Delayed(ctx, consumer, img, rtt)
	if err != nil || again.Ref != far.Ref || again.Peers[0] != far.Peers[0] {
		t.Errorf("asked again: %+v, %v; first %+v", again, err, far)
	}
	for what, ask := range map[string]func(*system.Image) time.Duration{
		"registry": func(i *system.Image) time.Duration { return askRegistry(t, consumer, i.Registry()) },
		"peer":     func(i *system.Image) time.Duration { return askPeer(t, consumer, i.Peers[0]) },
	} {
		near, took := ask(img), ask(far)
		t.Logf("%s: %v, and %v with a round trip of %v", what, near, took, rtt)
		if took < rtt {
			t.Errorf("%s: an answer after %v", what, took)
		}
	}
}

// askRegistry returns how long an answer takes on a connection that is there.
func askRegistry(t *testing.T, m *lab.Machine, addr string) time.Duration {
	t.Helper()
	client := m.HTTPClient()
	defer client.CloseIdleConnections()
	var took time.Duration
	for range 3 {
		start := time.Now()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		// A connection whose answer was not read is not used again.
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", addr, resp.Status, err)
		}
		took = time.Since(start)
	}
	return took
}

// askPeer returns how long a node takes to agree to a protocol, on a connection on which
// both have said hello.
func askPeer(t *testing.T, m *lab.Machine, peer string) time.Duration {
	t.Helper()
	parts := strings.Split(peer, "/") // /ip4/ADDR/tcp/PORT/p2p/ID
	conn, err := m.Dial(t.Context(), "tcp", net.JoinHostPort(parts[2], parts[4]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var took time.Duration
	for _, line := range []string{"/multistream/1.0.0", "/noise"} {
		line = string(rune(len(line)+1)) + line + "\n"
		start := time.Now()
		if _, err := io.WriteString(conn, line); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, len(line))
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != line {
			t.Fatalf("%s: %q, %v", peer, answer, err)
		}
		took = time.Since(start)
	}
	return took
}
