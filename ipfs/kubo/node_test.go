package kubo_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// A server is a daemon that can be away.
type server struct {
	t       *testing.T
	path    string
	handler http.Handler
	srv     *httptest.Server
}

func newServer(t *testing.T, h http.Handler) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubo")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, path: filepath.Join(dir, "api.sock"), handler: h}
	t.Cleanup(func() {
		s.stop()
		os.RemoveAll(dir)
	})
	return s
}

func (s *server) start() {
	s.t.Helper()
	l, err := net.Listen("unix", s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: s.handler}}
	s.srv.Start()
}

func (s *server) stop() {
	if s.srv != nil {
		s.srv.CloseClientConnections()
		s.srv.Close()
		s.srv = nil
	}
}

// lines is a log that tests look at.
type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.String(), text)
}

// until waits for something that comes soon.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 seconds", what)
		}
	}
}

func openNode(t *testing.T, addr string, store kubo.Store, timeout time.Duration, log *lines) *kubo.Node {
	t.Helper()
	n, err := kubo.Open(t.Context(), kubo.Config{Addr: addr, Timeout: timeout, Logger: slog.New(slog.NewTextHandler(log, nil))}, store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestNodeAgainstHandler(t *testing.T) {
	ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
		addr := serveUnix(t, kubo.NewHandler(ipfstest.NewMemory(), identity{}, nil))
		n, err := kubo.Open(t.Context(), kubo.Config{Addr: addr}, ipfstest.NewMemory())
		if err != nil {
			t.Fatal(err)
		}
		return n
	})
}

// TestNodeReadsHereFirst finds that what is in the store is not asked of Kubo, that what is
// got alone is kept there, and that what is put goes to Kubo alone.
func TestNodeReadsHereFirst(t *testing.T) {
	there, here, ctx := ipfstest.NewMemory(), ipfstest.NewMemory(), t.Context()
	n := openNode(t, serveUnix(t, kubo.NewHandler(there, identity{}, nil)), here, time.Second, &lines{})
	blocks := ipfstest.Blocks(t, 6, 100)
	if err := errors.Join(n.Cache(ctx, blocks[:2]...), n.Put(ctx, blocks[2:]...)); err != nil {
		t.Fatal(err)
	}
	if len(there.Cids()) != 4 || len(here.Cids()) != 2 {
		t.Fatalf("%d blocks in Kubo, %d in the store", len(there.Cids()), len(here.Cids()))
	}
	from := map[string]int{}
	err := n.Fetch(ctx, ipfstest.Cids(blocks), func(b ipfs.Block) error {
		from[b.From]++
		return ipfs.Verify(b.Cid, b.Data)
	})
	if err != nil || from[""] != 2 || from[kubo.Peer] != 4 || n.Received() != 400 {
		t.Errorf("%v from, %d bytes of Kubo: %v", from, n.Received(), err)
	}
	if len(here.Cids()) != 2 {
		t.Errorf("what was fetched is kept: %d blocks", len(here.Cids()))
	}
	for range 2 { // the second time it is here
		if data, err := n.Get(ctx, blocks[2].Cid); err != nil || !bytes.Equal(data, blocks[2].Data) {
			t.Errorf("%q, %v", data, err)
		}
	}
	if has, err := here.Has(ctx, blocks[2].Cid); err != nil || !has || n.Received() != 500 {
		t.Errorf("kept: %v, %v; %d bytes of Kubo", has, err, n.Received())
	}
	empty, err := ipfs.NewBlock(cid.Raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := n.Get(ctx, empty.Cid); err != nil || len(data) != 0 {
		t.Errorf("the empty block: %q, %v", data, err)
	}
}

// TestNodeWaitsForKubo reads and writes while Kubo is not there yet, is stopped, and comes back.
func TestNodeWaitsForKubo(t *testing.T) {
	log, memory := &lines{}, ipfstest.NewMemory()
	s := newServer(t, kubo.NewHandler(memory, identity{}, nil))
	blocks := ipfstest.Blocks(t, 300, 1000)
	if err := memory.Put(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
	n := openNode(t, s.path, ipfstest.NewMemory(), 20*time.Second, log)
	if err := n.State().Err; !errors.Is(err, kubo.ErrNoDaemon) || !log.has("level=WARN") {
		t.Fatalf("with no Kubo: %v", err)
	}
	later := time.AfterFunc(300*time.Millisecond, s.start)
	defer later.Stop()
	if _, err := n.Get(t.Context(), blocks[0].Cid); err != nil {
		t.Fatalf("Kubo came, and Get says %v", err)
	}
	until(t, "Kubo is seen", func() bool { return n.State().Err == nil && n.ID() == "12D3KooWSelf" && log.has("Kubo answers") })
	if c := n.Connected(); len(c) != 1 || c[0] != (identity{}).Connected()[0] {
		t.Errorf("its peers are %q", c)
	}

	// It is restarted in the midst of a Fetch.
	var once sync.Once
	got := 0
	err := n.Fetch(t.Context(), ipfstest.Cids(blocks), func(ipfs.Block) error {
		got++
		once.Do(func() {
			s.stop()
			time.AfterFunc(200*time.Millisecond, s.start)
		})
		return nil
	})
	if err != nil || got != len(blocks) {
		t.Errorf("%d of %d blocks: %v", got, len(blocks), err)
	}
	s.stop()
	time.AfterFunc(200*time.Millisecond, s.start)
	pin := ipfs.Pin{Root: blocks[0].Cid, Name: "later"}
	if err := errors.Join(n.Put(t.Context(), blocks[0]), n.Pin(t.Context(), pin)); err != nil {
		t.Errorf("Kubo came back: %v", err)
	}
}

// TestNodeGivesUp finds what is said when Kubo does not come in time, and that who gives up
// before is not kept.
func TestNodeGivesUp(t *testing.T) {
	s := newServer(t, nil)
	b := ipfstest.Blocks(t, 1, 100)[0]
	n := openNode(t, s.path, ipfstest.NewMemory(), 400*time.Millisecond, &lines{})
	start := time.Now()
	_, err := n.Get(t.Context(), b.Cid)
	if !errors.Is(err, kubo.ErrNoDaemon) || time.Since(start) < 200*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	for _, want := range []string{s.path, b.Cid.String(), "node.kubo"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in the error: %v", want, err)
		}
	}
	patient := openNode(t, s.path, ipfstest.NewMemory(), time.Hour, &lines{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := patient.Get(ctx, b.Cid); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, kubo.ErrNoDaemon) {
		t.Errorf("with a context that ends: %v", err)
	}
}
