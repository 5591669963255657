package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestProtocols are all that a node accepts: what it needs, and what libp2p needs to find out that.
func TestProtocols(t *testing.T) {
	n, err := Open(t.Context(), Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}, ipfstest.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	got := n.online.host.Mux().Protocols()
	want := append([]protocol.ID{"/ipcs/blocks/1.0.0", BlobsProtocol, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"}, bitswapProtocols()...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("it accepts %v, want %v", got, want)
	}
}

// TestGate keeps strangers out in both directions, before and after they have proven who they are.
func TestGate(t *testing.T) {
	configured := peer.AddrInfo{ID: "configured"}
	for name, tt := range map[string]struct {
		allowed []peer.ID
		let     map[peer.ID]bool
	}{
		"NoList": {nil, map[peer.ID]bool{"configured": true, "friend": true, "stranger": true}},
		"List":   {[]peer.ID{"friend"}, map[peer.ID]bool{"configured": true, "friend": true, "stranger": false}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newPeerBook(time.Hour, []peer.AddrInfo{configured}, tt.allowed)
			for p, want := range tt.let {
				if got := b.InterceptPeerDial(p); got != want {
					t.Errorf("dial %s: %v", p, got)
				}
				for _, dir := range []network.Direction{network.DirInbound, network.DirOutbound} {
					if got := b.InterceptSecured(dir, p, nil); got != want {
						t.Errorf("%s %v: %v", p, dir, got)
					}
				}
			}
		})
	}
}

// readStream is a stream of which only reading works.
type readStream struct {
	network.Stream
	io.Reader
}

func (readStream) SetReadDeadline(time.Time) error { return nil }
func (s readStream) Read(b []byte) (int, error)    { return s.Reader.Read(b) }
func (readStream) Conn() network.Conn              { return fakeConn{id: "peer"} }
func (readStream) RemoteMultiaddr() ma.Multiaddr   { return nil }

// read returns what comes through of what a peer sends.
func read(room *messageRoom, sent []byte) ([]byte, error) {
	s := readStream{Reader: bytes.NewReader(sent)}
	m := newMessages(s, maxMessage, checkMessage, room)
	defer m.letGo()
	return io.ReadAll(m)
}

func newRoom() *messageRoom { return newGuardedHost(nil).room }

// framed is a message with its size before it.
func framed(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// goodMessage has some of everything.
func goodMessage(t testing.TB) []byte {
	t.Helper()
	msg := message.New(true)
	for _, b := range ipfstest.Blocks(t, 10, 100) {
		msg.AddEntry(b.Cid, 1, pb.Message_Wantlist_Have, true)
		msg.AddHave(b.Cid)
		blk, err := blocks.NewBlockWithCid(b.Data, b.Cid)
		if err != nil {
			t.Fatal(err)
		}
		msg.AddBlock(blk)
	}
	var buf bytes.Buffer
	if err := msg.ToNetV1(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestMessagesComeThrough(t *testing.T) {
	sent := slices.Repeat(goodMessage(t), 3)
	room := newRoom()
	if got, err := read(room, sent); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes: %v", len(got), len(sent), err)
	}
	if room.all != 0 || len(room.held) != 0 {
		t.Errorf("%d bytes are still held", room.all)
	}
	for n := 1; n < len(sent)/3; n++ {
		if _, err := read(room, sent[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestBadMessagesDoNot(t *testing.T) {
	wants := bytes.Repeat([]byte{0x0a, 0}, maxParts+1)
	for name, sent := range map[string][]byte{
		"TooLarge":      binary.AppendUvarint(nil, maxMessage+1),
		"FarTooLarge":   binary.AppendUvarint(nil, 1<<63),
		"ManyWants":     framed(append(binary.AppendUvarint([]byte{0x0a}, uint64(len(wants))), wants...)),
		"ManyWantlists": framed(wants),
		"ManyBlocks":    framed(bytes.Repeat([]byte{0x12, 0}, maxParts+1)),
		"ManyPayloads":  framed(bytes.Repeat([]byte{0x1a, 0}, maxParts+1)),
		"ManyPresences": framed(bytes.Repeat([]byte{0x22, 0}, maxParts+1)),
		"NoProtobuf":    framed([]byte("GET / HTTP/1.1")),
		"CutField":      framed([]byte{0x12, 200, 1}),
	} {
		got, err := read(newRoom(), sent)
		if !errors.Is(err, errMessage) || len(got) > 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestMessageRoom gives a peer its share of it, and others theirs.
func TestMessageRoom(t *testing.T) {
	r := newRoom()
	soon := func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	if !r.take("a", messagesPerPeer, soon()) || r.take("a", 1, soon()) {
		t.Error("a peer gets less or more than is for it")
	}
	if !r.take("b", messagesPerPeer, soon()) {
		t.Error("another peer gets nothing")
	}
	waits := make(chan bool)
	go func() { waits <- r.take("a", messagesPerPeer, time.Now().Add(time.Minute)) }()
	r.giveBack("a", messagesPerPeer)
	if !<-waits {
		t.Error("a peer does not get what it gave back")
	}
	for p := peer.ID("c"); r.take(p, messagesPerPeer, soon()); p += "c" {
	}
	if r.all != allMessages {
		t.Errorf("all get %d bytes, want %d", r.all, allMessages)
	}
}

// FuzzMessages lets through only what can be decoded in bounded memory.
func FuzzMessages(f *testing.F) {
	f.Add(goodMessage(f))
	f.Add(framed(bytes.Repeat([]byte{0x0a, 0}, 100)))
	f.Add([]byte{1, 0})
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, sent []byte) {
		room := newRoom()
		got, err := read(room, sent)
		if !bytes.HasPrefix(sent, got) {
			t.Errorf("%x became %x", sent, got)
		}
		if err == nil && len(got) != len(sent) {
			t.Errorf("%d of %d bytes without an error", len(got), len(sent))
		}
		if room.all != 0 {
			t.Errorf("%d bytes are held", room.all)
		}
	})
}
