package kubo_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// identity stands for a node with a peer.
type identity struct{}

func (identity) ID() string          { return "12D3KooWSelf" }
func (identity) Addrs() []string     { return []string{"/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWSelf"} }
func (identity) Connected() []string { return []string{"/ip4/127.0.0.1/tcp/4002/p2p/12D3KooWPeer"} }

// serveUnix serves a handler on a socket, and returns its path.
func serveUnix(t *testing.T, h http.Handler) string {
	t.Helper()
	// Names of sockets are short; those of test folders may not be.
	dir, err := os.MkdirTemp("", "kubo")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(func() {
		srv.Close()
		os.RemoveAll(dir)
	})
	return path
}

func client(t *testing.T, addr string) *kubo.Client {
	t.Helper()
	c, err := kubo.New(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestClosedIdle sends requests to a daemon that closes each connection after its answer without
// having said so: some are closed just when the next request is sent.
func TestClosedIdle(t *testing.T) {
	memory := ipfstest.NewMemory()
	b := ipfstest.Blocks(t, 1, 100)[0]
	if err := memory.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	handler := kubo.NewHandler(memory, identity{}, nil)
	srv := &http.Server{Handler: handler, ConnState: func(conn net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			conn.Close()
		}
	}}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	defer wg.Wait()
	defer srv.Close()
	c, err := kubo.New(l.Addr().String()) // without patience
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 500 {
		if err := c.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), b.Cid); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientAgainstHandler(t *testing.T) {
	ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
		return client(t, serveUnix(t, kubo.NewHandler(ipfstest.NewMemory(), identity{}, nil)))
	})
}

func TestAddresses(t *testing.T) {
	path := serveUnix(t, kubo.NewHandler(ipfstest.NewMemory(), identity{}, nil))
	tcp := httptest.NewServer(kubo.NewHandler(ipfstest.NewMemory(), identity{}, nil))
	t.Cleanup(tcp.Close)
	host, port, err := net.SplitHostPort(tcp.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{
		path, "/unix" + path, "unix://" + path, tcp.URL, tcp.URL + "/",
		"/ip4/" + host + "/tcp/" + port, "/ip4/" + host + "/tcp/" + port + "/http", host + ":" + port,
	} {
		if _, err := client(t, addr).Pins(t.Context(), ""); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"", "http://", "/ip4/127.0.0.1/udp/x", "/ip4/127.0.0.1", "nonsense"} {
		if _, err := kubo.New(addr); err == nil {
			t.Errorf("address %q was accepted", addr)
		}
	}
}

// TestPassword gives the name and the password that are in a URL.
func TestPassword(t *testing.T) {
	h := kubo.NewHandler(ipfstest.NewMemory(), identity{}, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, ok := r.BasicAuth(); !ok || name != "ipcs" || password != "s3cret" {
			http.Error(w, "403 - Forbidden", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	if _, err := client(t, strings.Replace(srv.URL, "://", "://ipcs:s3cret@", 1)).Pins(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if _, err := client(t, srv.URL).Pins(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("without them: %v", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	b := ipfstest.Blocks(t, 1, 10)[0]
	absent := filepath.Join(t.TempDir(), "api.sock")
	err := client(t, absent).Put(t.Context(), b)
	if !errors.Is(err, kubo.ErrNoDaemon) {
		t.Fatalf("Put with no daemon: %v", err)
	}
	for _, want := range []string{absent, "ipcs-snapshotter", "--repo"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in the error: %v", want, err)
		}
	}
	_, err = client(t, "/ip4/127.0.0.1/tcp/1").Get(t.Context(), b.Cid)
	if !errors.Is(err, kubo.ErrNoDaemon) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Get with no daemon: %v", err)
	}
}

// TestHostileDaemon has a daemon answer with what it should not.
func TestHostileDaemon(t *testing.T) {
	blocks := ipfstest.Blocks(t, 2, 100)
	endless := func(w http.ResponseWriter, status int, contentType string) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		for chunk := make([]byte, 1<<16); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"wrong bytes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write(blocks[1].Data)
		},
		"endless block": func(w http.ResponseWriter, _ *http.Request) { endless(w, 200, "application/octet-stream") },
		"endless error": func(w http.ResponseWriter, _ *http.Request) { endless(w, 500, "text/plain") },
		"broken JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"Cid": 7`)
		},
		"nothing": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/json") },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"trailing error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Stream-Error")
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "{}")
			w.Header().Set("X-Stream-Error", "disk full")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, serveUnix(t, answer))
			if data, err := c.Get(t.Context(), blocks[0].Cid); err == nil {
				t.Errorf("Get gave %q", data)
			}
			if err := c.Put(t.Context(), blocks[0]); err == nil {
				t.Error("Put succeeded")
			}
			err := c.Fetch(t.Context(), ipfstest.Cids(blocks[:1]), func(ipfs.Block) error { return errors.New("delivered") })
			if err == nil || err.Error() == "delivered" {
				t.Errorf("Fetch: %v", err)
			}
		})
	}
}

func TestClientCancelled(t *testing.T) {
	asked := make(chan struct{})
	c := client(t, serveUnix(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := c.Get(ctx, ipfstest.Blocks(t, 1, 10)[0].Cid); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
}
