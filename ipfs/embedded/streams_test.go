package embedded

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// fakeStream is a peer's end of a pipe.
type fakeStream struct {
	network.Stream
	pipe net.Conn
	conn fakeConn
}

type fakeConn struct {
	network.Conn
	id peer.ID
}

func (c fakeConn) RemotePeer() peer.ID { return c.id }

func (s fakeStream) Conn() network.Conn                 { return s.conn }
func (s fakeStream) Read(b []byte) (int, error)         { return s.pipe.Read(b) }
func (s fakeStream) Write(b []byte) (int, error)        { return s.pipe.Write(b) }
func (s fakeStream) SetWriteDeadline(t time.Time) error { return s.pipe.SetWriteDeadline(t) }
func (s fakeStream) Reset() error                       { return s.pipe.Close() }

// TestIdleStreamsKeepNobodyOut has as many peers as are served open streams, and want nothing
// any more, and finds that another is served all the same.
func TestIdleStreamsKeepNobodyOut(t *testing.T) {
	codec, err := transfer.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	store, list := ipfstest.NewMemory(), ipfstest.Blocks(t, 2, 1000)
	if err := store.Put(t.Context(), list[0]); err != nil {
		t.Fatal(err)
	}
	streams := newBlockStreams(nil, newPeerBook(time.Hour, nil, nil), offered{Store: store}, nil, codec)
	t.Cleanup(streams.wg.Wait) // after the pipes are closed
	open := func(id peer.ID) net.Conn {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close() })
		streams.wg.Go(func() { streams.serve(t.Context(), fakeStream{pipe: far, conn: fakeConn{id: id}}) })
		return near
	}
	// ask is answered, with a block or in 3 bytes that there is none.
	ask := func(c net.Conn, b ipfs.Block) error {
		client := transfer.NewClient(c, codec, new(transfer.Received))
		if err := client.Send([]transfer.Want{{Cid: b.Cid}}); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 3))
		return err
	}
	for i := range maxServed {
		if err := ask(open(peer.ID(fmt.Sprintf("idle %d", i))), list[1]); err != nil {
			t.Fatalf("peer %d: %v", i, err)
		}
	}
	if err := ask(open("active"), list[0]); err != nil {
		t.Errorf("a peer was refused because of others that want nothing: %v", err)
	}
}

// TestReopening opens a stream anew without end, more and more rarely, until one has lived.
func TestReopening(t *testing.T) {
	var again reopening
	for try := range 100 {
		got := again.delay(time.Second)
		switch {
		case try < quickReopens && got != reopenDelay, got < reopenDelay, got > maxReopenDelay, try > 20 && got != maxReopenDelay:
			t.Fatalf("try %d is after %s", try, got)
		}
	}
	if got := again.delay(steadyTime); got != reopenDelay {
		t.Errorf("a stream that lived is replaced after %s", got)
	}
}
