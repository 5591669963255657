package embedded_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

const loopback = "/ip4/127.0.0.1/tcp/0"

// open starts a node on loopback that is closed with the test.
func open(t testing.TB, cfg embedded.Config, store embedded.Store) *embedded.Node {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []string{loopback}
	}
	if testing.Verbose() && cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	n, err := embedded.Open(t.Context(), cfg, store)
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

// openPair starts a server and a node that has it as a peer, connected.
func openPair(t testing.TB, server, client embedded.Store) (srv, cli *embedded.Node) {
	t.Helper()
	srv = open(t, embedded.Config{}, server)
	cli = open(t, embedded.Config{Peers: srv.Addrs()}, client)
	waitConnected(t, cli, srv.ID())
	return srv, cli
}

// eventually waits for something that other goroutines bring about.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func info(n *embedded.Node, id string) embedded.PeerInfo {
	for _, p := range n.Peers() {
		if p.ID == id {
			return p
		}
	}
	return embedded.PeerInfo{}
}

func waitConnected(t testing.TB, n *embedded.Node, id string) {
	t.Helper()
	eventually(t, "connection to "+id, func() bool { return info(n, id).Connected })
}

func put(t testing.TB, n ipfs.Putter, blocks ...ipfs.Block) {
	t.Helper()
	if err := n.Put(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
}

// fetchAll fetches and verifies.
func fetchAll(ctx context.Context, n ipfs.Fetcher, cids []cid.Cid) (int, error) {
	got := 0
	err := n.Fetch(ctx, cids, func(b ipfs.Block) error {
		got++
		return ipfs.Verify(b.Cid, b.Data)
	})
	return got, err
}

func TestOffline(t *testing.T) {
	ipfstest.Suite(t, func(*testing.T) ipfs.Node { return embedded.Offline(ipfstest.NewMemory()) })
}

func TestAlone(t *testing.T) {
	ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
		return open(t, embedded.Config{Timeout: 200 * time.Millisecond}, ipfstest.NewMemory())
	})
}

func TestWithPeer(t *testing.T) {
	ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
		srv := open(t, embedded.Config{}, ipfstest.NewMemory())
		return open(t, embedded.Config{Timeout: 200 * time.Millisecond, Peers: srv.Addrs()}, ipfstest.NewMemory())
	})
}

func TestGetStoresFetchDoesNot(t *testing.T) {
	server, client := ipfstest.NewMemory(), ipfstest.NewMemory()
	blocks := ipfstest.Blocks(t, 600, 3000)
	put(t, server, blocks...)
	srv, cli := openPair(t, server, client)
	if _, err := cli.Get(t.Context(), blocks[0].Cid); err != nil {
		t.Fatal(err)
	}
	if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(blocks)); n != len(blocks) || err != nil {
		t.Fatalf("%d of %d blocks: %v", n, len(blocks), err)
	}
	if client.Len() != 1 {
		t.Errorf("%d blocks stored, want only the one that Get got", client.Len())
	}
	if got, want := info(cli, srv.ID()).BytesIn, uint64(600*3000); got != want {
		t.Errorf("BytesIn = %d, want %d", got, want)
	}
}

func TestEmptyBlockFromPeer(t *testing.T) {
	empty, err := ipfs.NewBlock(cid.Raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, cli := openPair(t, ipfstest.NewMemory(), ipfstest.NewMemory())
	if data, err := cli.Get(t.Context(), empty.Cid); err != nil || len(data) != 0 {
		t.Fatalf("Get of the empty block: %d bytes, %v", len(data), err)
	}
}

func TestConcurrentGetsShareOneWant(t *testing.T) {
	server, client := ipfstest.NewMemory(), ipfstest.NewMemory()
	b := ipfstest.Blocks(t, 1, 100_000)[0]
	srv, cli := openPair(t, server, client)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := cli.Get(t.Context(), b.Cid); err != nil {
				t.Error(err)
			}
		})
	}
	// The block appears while all of them wait; the server sends it to who wants it.
	eventually(t, "asking", func() bool { return client.Counts().Gets == 20 })
	put(t, srv, b)
	wg.Wait()
	if n := client.Counts().Puts; n != 1 {
		t.Errorf("stored %d times, want once", n)
	}
	if got := info(cli, srv.ID()).BytesIn; got != 100_000 {
		t.Errorf("%d bytes came, want the block once", got)
	}
}

func TestGivingUpDoesNotCancelForOthers(t *testing.T) {
	b := ipfstest.Blocks(t, 1, 1000)[0]
	client := ipfstest.NewMemory()
	srv, cli := openPair(t, ipfstest.NewMemory(), client)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := cli.Get(ctx, b.Cid); first <- err }()
	go func() { _, err := cli.Get(t.Context(), b.Cid); second <- err }()
	eventually(t, "asking", func() bool { return client.Counts().Gets == 2 })
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled Get: %v", err)
	}
	put(t, srv, b)
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

func TestNotFoundNamesPeers(t *testing.T) {
	gone := open(t, embedded.Config{}, ipfstest.NewMemory())
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	srv := open(t, embedded.Config{}, ipfstest.NewMemory())
	cli := open(t, embedded.Config{Peers: append(srv.Addrs(), "/ip4/127.0.0.1/tcp/1/p2p/"+gone.ID()), Timeout: time.Second}, ipfstest.NewMemory())
	waitConnected(t, cli, srv.ID())
	b := ipfstest.Blocks(t, 1, 100)[0]
	_, err := cli.Get(t.Context(), b.Cid)
	var nf *embedded.NotFoundError
	if !errors.As(err, &nf) || !errors.Is(err, ipfs.ErrNotFound) {
		t.Fatalf("Get = %v, want NotFoundError", err)
	}
	if !nf.Cid.Equals(b.Cid) || len(nf.Peers) != 2 || nf.Waited < time.Second {
		t.Errorf("NotFoundError %+v", nf)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = cli.Get(ctx, b.Cid)
	if !errors.As(err, &nf) || len(nf.Peers) != 2 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get with a deadline = %v", err)
	}
	if _, err := fetchAll(t.Context(), cli, ipfstest.Cids(ipfstest.Blocks(t, 2000, 9))); !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("Fetch = %v", err)
	}
}

// freePort returns a port of loopback that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

// TestResume starts a fetch while the peer is down, and later stops and starts the
// peer in the middle of one.
func TestResume(t *testing.T) {
	key := t.TempDir() + "/key"
	server := ipfstest.NewMemory()
	blocks := ipfstest.Blocks(t, 3000, 20_000)
	put(t, server, blocks...)
	listen := "/ip4/127.0.0.1/tcp/" + freePort(t)
	start := func() *embedded.Node {
		return open(t, embedded.Config{KeyFile: key, Listen: []string{listen}}, server)
	}
	srv := start()
	addrs, id := srv.Addrs(), srv.ID()
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	client := ipfstest.NewMemory()
	cli := open(t, embedded.Config{Peers: addrs}, client)
	got := make(chan error, 1)
	go func() { _, err := cli.Get(t.Context(), blocks[0].Cid); got <- err }()
	eventually(t, "asking", func() bool { return client.Counts().Gets == 1 })
	srv = start()
	if err := <-got; err != nil {
		t.Fatalf("Get that began while the peer was down: %v", err)
	}
	n := 0
	err := cli.Fetch(t.Context(), ipfstest.Cids(blocks), func(b ipfs.Block) error {
		if n++; n == 700 {
			if err := srv.Close(); err != nil {
				return err
			}
			srv = start()
		}
		return ipfs.Verify(b.Cid, b.Data)
	})
	if err != nil || n != len(blocks) {
		t.Fatalf("%d of %d blocks over a restart of the peer: %v", n, len(blocks), err)
	}
	if srv.ID() != id {
		t.Errorf("the identity changed with the restart")
	}
}

func TestTwoPeersWithHalfEach(t *testing.T) {
	blocks := ipfstest.Blocks(t, 1000, 5000)
	even, odd := ipfstest.NewMemory(), ipfstest.NewMemory()
	for i, b := range blocks {
		put(t, []*ipfstest.Memory{even, odd}[i%2], b)
	}
	a, b := open(t, embedded.Config{}, even), open(t, embedded.Config{}, odd)
	cli := open(t, embedded.Config{Peers: append(a.Addrs(), b.Addrs()...)}, ipfstest.NewMemory())
	waitConnected(t, cli, a.ID())
	waitConnected(t, cli, b.ID())
	from := make(map[cid.Cid]string)
	err := cli.Fetch(t.Context(), ipfstest.Cids(blocks), func(b ipfs.Block) error {
		from[b.Cid] = b.From
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range blocks {
		if want := []string{a.ID(), b.ID()}[i%2]; from[block.Cid] != want {
			t.Fatalf("block %d is from %q, want %s", i, from[block.Cid], want)
		}
	}
	for _, id := range []string{a.ID(), b.ID()} {
		if in := info(cli, id).BytesIn; in != 500*5000 {
			t.Errorf("%d bytes from %s, want its half, once", in, id)
		}
	}
}

func TestCloseWhileFetching(t *testing.T) {
	_, cli := openPair(t, ipfstest.NewMemory(), ipfstest.NewMemory())
	done := make(chan error, 1)
	go func() {
		_, err := fetchAll(t.Context(), cli, ipfstest.Cids(ipfstest.Blocks(t, 600, 100)))
		done <- err
	}()
	if err := cli.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("Fetch of blocks nobody has succeeded on a closed node")
	}
	if _, err := cli.Get(t.Context(), ipfstest.Blocks(t, 1, 50)[0].Cid); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Get on a closed node: %v", err)
	}
}
