package embedded_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// blocksProtocol is what spec/transfer.md calls it.
const blocksProtocol = "/ipcs/blocks/1.0.0"

// startHost starts a libp2p host that is nobody's node.
func startHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(loopback), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// startBlockRogue starts a peer that speaks our protocol as its test says: answer gets the
// digests that each request wants, and the number of the first.
func startBlockRogue(t *testing.T, answer func(s network.Stream, first int, wants [][]byte) error) host.Host {
	t.Helper()
	h := startHost(t)
	h.SetStreamHandler(blocksProtocol, func(s network.Stream) {
		defer s.Reset()
		r, first := bufio.NewReader(s), 0
		for {
			size, err := binary.ReadUvarint(r)
			if err != nil {
				return
			}
			body := make([]byte, size)
			if _, err := io.ReadFull(r, body); err != nil {
				return
			}
			var wants [][]byte
			for len(body) > 0 {
				if body[0] == 2 { // a cancel
					_, n := binary.Uvarint(body[1:])
					body = body[1+n:]
					continue
				}
				wants = append(wants, body[3:35]) // of a raw block
				body = body[35:]
			}
			if len(wants) > 0 && answer(s, first, wants) != nil {
				return
			}
			first += len(wants)
		}
	})
	return h
}

func addrOf(h host.Host) string { return h.Addrs()[0].String() + "/p2p/" + h.ID().String() }

// rawFrame is a frame with one block, of any bytes.
func rawFrame(id int, data []byte) []byte {
	b := binary.AppendUvarint([]byte{2, 1}, uint64(id))
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// rogues are the ways in which a peer may fail.
func rogues(t *testing.T) map[string]func(s network.Stream, first int, wants [][]byte) error {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zeros := e.EncodeAll(make([]byte, 64<<20), nil)
	write := func(s network.Stream, b []byte) error { _, err := s.Write(b); return err }
	return map[string]func(s network.Stream, first int, wants [][]byte) error{
		"WrongBytes": func(s network.Stream, first int, _ [][]byte) error { return write(s, rawFrame(first, []byte("wrong"))) },
		"Bomb": func(s network.Stream, first int, _ [][]byte) error {
			b := binary.AppendUvarint([]byte{3, 1}, uint64(first))
			b = binary.AppendUvarint(b, ipfs.MaxBlock)
			b = binary.AppendUvarint(b, uint64(len(zeros)))
			return write(s, append(b, zeros...))
		},
		"Garbage": func(s network.Stream, _ int, _ [][]byte) error { return write(s, []byte("HTTP/1.1 200 OK\r\n\r\n")) },
		"Silence": func(network.Stream, int, [][]byte) error { return nil },
		"HalfFrame": func(s network.Stream, first int, _ [][]byte) error {
			write(s, rawFrame(first, make([]byte, 900))[:700])
			return io.EOF
		},
		"Stall": func(s network.Stream, first int, _ [][]byte) error {
			return write(s, rawFrame(first, make([]byte, 900))[:700])
		},
		"HangsUp": func(network.Stream, int, [][]byte) error { return io.EOF },
		"HasNothing": func(s network.Stream, first int, wants [][]byte) error {
			for id := first; id < first+len(wants); id++ {
				if err := write(s, binary.AppendUvarint([]byte{0, 1}, uint64(id))); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// TestGoodPeerServesBesideRogue gets all blocks of a list although a peer that is asked for
// some of them fails, in each way.
func TestGoodPeerServesBesideRogue(t *testing.T) {
	for name, answer := range rogues(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := startBlockRogue(t, answer)
			server, client := ipfstest.NewMemory(), ipfstest.NewMemory()
			want := ipfstest.Blocks(t, 800, 4000)
			put(t, server, want...)
			good := open(t, embedded.Config{}, server)
			cli := open(t, embedded.Config{Peers: append(good.Addrs(), addrOf(bad))}, client)
			waitConnected(t, cli, good.ID())
			waitConnected(t, cli, bad.ID().String())
			if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(want)); n != len(want) || err != nil {
				t.Fatalf("%d of %d blocks: %v", n, len(want), err)
			}
		})
	}
}

// TestRogueIsBanned gets nothing wrong from a peer that breaks the protocol, and refuses it
// after some tries.
func TestRogueIsBanned(t *testing.T) {
	all := rogues(t)
	for _, name := range []string{"WrongBytes", "Bomb", "Garbage"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := startBlockRogue(t, all[name])
			store := ipfstest.NewMemory()
			cli := open(t, embedded.Config{Peers: []string{addrOf(bad)}}, store)
			id := bad.ID().String()
			waitConnected(t, cli, id)
			ctx, cancel := context.WithCancel(t.Context())
			got := make(chan error, 1)
			go func() {
				_, err := cli.Get(ctx, ipfstest.Blocks(t, 1, 1000)[0].Cid)
				got <- err
			}()
			eventually(t, "the ban", func() bool { p := info(cli, id); return p.Banned && !p.Connected })
			cancel()
			if err := <-got; !errors.Is(err, context.Canceled) {
				t.Errorf("Get from a hostile peer: %v", err)
			}
			if store.Len() != 0 {
				t.Errorf("%d blocks stored", store.Len())
			}
		})
	}
}

// TestHostileClients serves a peer beside others that want without reading, want too much, and
// send what is no request.
func TestHostileClients(t *testing.T) {
	server := ipfstest.NewMemory()
	want := ipfstest.Blocks(t, 800, 100_000)
	put(t, server, want...)
	srv := open(t, embedded.Config{}, server)
	var wants []byte
	for _, b := range want {
		wants = append(wants, 0, 0, 0x55)
		wants = append(wants, b.Cid.Hash()[2:]...)
	}
	wants = append(binary.AppendUvarint(nil, uint64(len(wants))), wants...)
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, sends := range map[string][]byte{"reads nothing": wants, "garbage": []byte("GET / HTTP/1.1\r\n\r\n"), "too large": {0xff, 0xff, 0xff, 0x7f}} {
		h := startHost(t)
		if err := h.Connect(t.Context(), peerInfo(t, srv)); err != nil {
			t.Fatal(err)
		}
		for range 5 { // more than it may have
			s, err := h.NewStream(t.Context(), peerInfo(t, srv).ID, blocksProtocol)
			if err != nil {
				continue
			}
			wg.Go(func() {
				for range 12 { // more than may be wanted
					if _, err := s.Write(sends); err != nil {
						return
					}
				}
				if name != "reads nothing" {
					if _, err := io.Copy(io.Discard, s); err == nil {
						t.Errorf("%s: the stream ended well", name)
					}
				}
			})
		}
	}
	cli := open(t, embedded.Config{Peers: srv.Addrs()}, ipfstest.NewMemory())
	waitConnected(t, cli, srv.ID())
	if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(want)); n != len(want) || err != nil {
		t.Fatalf("%d of %d blocks: %v", n, len(want), err)
	}
}
