package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/dht"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// rootOf returns a block that may be a layer's root, and a function that names it as the one that is here.
func rootOf(t *testing.T, data string) (ipfs.Block, func(context.Context) []cid.Cid) {
	t.Helper()
	prefix := cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: 0x12, MhLength: -1}
	c, err := prefix.Sum([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return ipfs.Block{Cid: c, Data: []byte(data)}, func(context.Context) []cid.Cid { return []cid.Cid{c} }
}

// TestFoundByDHT has a publisher tell a node in the middle of a layer. A third node, which knows only
// the one in the middle, finds the publisher, and reads a file of the layer from it. In a table of three it may have asked the
// publisher itself, of which the one in the middle told it: that the record is sent is for TestOnlyRootsAreAnnounced.
func TestFoundByDHT(t *testing.T) {
	net := newMemNet(t)
	root, roots := rootOf(t, "a layer")
	file := ipfstest.Blocks(t, 1, 1000)[0]
	has := ipfstest.NewMemory()
	if err := has.Put(t.Context(), root, file); err != nil {
		t.Fatal(err)
	}
	middle := net.node(t, Config{DHT: true}, nil)
	publisher := net.node(t, Config{DHT: true, Roots: roots}, has, middle.online.host)
	reader := net.node(t, Config{DHT: true, Roots: roots}, nil, middle.online.host)
	soon(t, "the publisher's record", func() bool { // who is connected by then could be asked without it
		found, _ := reader.online.dht.Find(t.Context(), root.Cid)
		return len(found) == 1 && found[0].ID == publisher.online.host.ID() && len(found[0].Addrs) > 0
	})
	reader.online.finder.lack([]cid.Cid{root.Cid})
	soon(t, "the finding", func() bool {
		f := reader.online.finder
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.found[publisher.online.host.ID()] != nil
	})
	for _, b := range []ipfs.Block{file, root} {
		got, err := reader.Get(t.Context(), b.Cid)
		if err != nil || !bytes.Equal(got, b.Data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	for _, p := range reader.Peers() {
		want := map[string]Source{publisher.ID(): FoundDHT, middle.ID(): FoundConfigured}[p.ID]
		if p.Found != want || p.ID == middle.ID() && p.BytesIn > 0 {
			t.Errorf("%s, with %d bytes, was found by %q, want %q", p.ID, p.BytesIn, p.Found, want)
		}
	}
}

// TestDHTNeedsMembers refuses a DHT that anybody could join, and leaves it out where nobody wants it.
func TestDHTNeedsMembers(t *testing.T) {
	if _, err := Open(t.Context(), Config{DHT: true}, ipfstest.NewMemory()); err == nil || !strings.Contains(err.Error(), "private network key") {
		t.Errorf("a DHT for all: %v", err)
	}
	net := newMemNet(t)
	off, on := net.node(t, Config{}, nil), net.node(t, Config{DHT: true}, nil)
	of := func(n *Node) (kad []protocol.ID) {
		for _, id := range n.online.host.Mux().Protocols() {
			if strings.Contains(string(id), "kad") {
				kad = append(kad, id)
			}
		}
		return kad
	}
	if got := of(off); len(got) > 0 || off.online.dht != nil {
		t.Errorf("it speaks %v with the DHT off", got)
	}
	if got := of(on); !slices.Equal(got, []protocol.ID{"/ipcs/kad/1.0.0"}) {
		t.Errorf("it speaks %v: only a protocol of our own keeps it out of the public DHT", got)
	}
}

// kadRogue is a node of the DHT that answers what it likes, and notes what it was told.
type kadRogue struct {
	host.Host
	mu   sync.Mutex
	told []*pb.Message
}

// startKadRogue answers to each message with what answer returns, which may be nil.
func startKadRogue(t *testing.T, net *memNet, answer func(*pb.Message) []byte) *kadRogue {
	t.Helper()
	r := &kadRogue{Host: net.host(t)}
	r.SetStreamHandler(dht.Protocol, func(s network.Stream) {
		defer s.Close()
		for {
			m, err := readKad(s)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.told = append(r.told, m)
			r.mu.Unlock()
			if m.Type == pb.Message_ADD_PROVIDER {
				continue
			}
			b := answer(m)
			if b == nil {
				if b, err = proto.Marshal(&pb.Message{Type: m.Type}); err != nil {
					return
				}
			}
			if _, err := s.Write(framed(b)); err != nil {
				return
			}
		}
	})
	return r
}

// got are the keys of what it was told.
func (r *kadRogue) got(of pb.Message_MessageType) (keys []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.told {
		if m.Type == of {
			keys = append(keys, string(m.Key))
		}
	}
	return keys
}

type oneByte struct{ io.Reader }

func (r oneByte) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

func readKad(r io.Reader) (*pb.Message, error) {
	size, err := binary.ReadUvarint(oneByte{r})
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	m := new(pb.Message)
	return m, proto.Unmarshal(b, m)
}

// TestOnlyRootsAreAnnounced has a node with a root and a hundred files, of which others learn of the root alone; and when
// there is one more, of that one.
func TestOnlyRootsAreAnnounced(t *testing.T) {
	net := newMemNet(t)
	rogue := startKadRogue(t, net, func(*pb.Message) []byte { return nil })
	first, _ := rootOf(t, "a layer")
	second, _ := rootOf(t, "another")
	var mu sync.Mutex
	roots := []cid.Cid{first.Cid}
	store := ipfstest.NewMemory()
	if err := store.Put(t.Context(), append(ipfstest.Blocks(t, 100, 1000), first)...); err != nil {
		t.Fatal(err)
	}
	node := net.node(t, Config{DHT: true, Roots: func(context.Context) []cid.Cid {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(roots)
	}}, store, rogue)
	soon(t, "the announcement", func() bool { return len(rogue.got(pb.Message_ADD_PROVIDER)) > 0 })
	if err := node.Put(t.Context(), append(ipfstest.Blocks(t, 100, 500), second)...); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	roots = append(roots, second.Cid)
	mu.Unlock()
	soon(t, "the second announcement", func() bool { return len(rogue.got(pb.Message_ADD_PROVIDER)) > 1 })
	want := []string{string(first.Cid.Hash()), string(second.Cid.Hash())}
	if got := rogue.got(pb.Message_ADD_PROVIDER); !slices.Equal(got, want) {
		t.Errorf("%d things were announced, want the two roots, once each: %x", len(got), got)
	}
	for _, of := range []pb.Message_MessageType{pb.Message_PUT_VALUE, pb.Message_GET_VALUE} {
		if got := rogue.got(of); len(got) > 0 {
			t.Errorf("%s: %x", of, got)
		}
	}
}

// invented returns many peers, each with these addresses.
func invented(t *testing.T, n int, addrs ...string) (peers []*pb.Message_Peer) {
	t.Helper()
	for i := range n {
		id := append([]byte{0x12, 32}, fmt.Appendf(nil, "%032d", i)...)
		p := &pb.Message_Peer{Id: id}
		for _, a := range addrs {
			p.Addrs = append(p.Addrs, ma.StringCast(a).Bytes())
		}
		peers = append(peers, p)
	}
	return peers
}

// TestHostileDHT asks a node that answers with invented providers and nodes: few are taken, none at an address of
// this host or its link, and messages that are too much are not decoded.
func TestHostileDHT(t *testing.T) {
	bad := []string{"/ip4/127.0.0.1/tcp/22", "/ip4/169.254.169.254/tcp/80", "/ip6/fe80::1/tcp/4001", "/ip4/10.0.0.1/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/1"}
	good := []string{"/ip4/10.1.0.1/tcp/1", "/ip4/10.1.0.1/tcp/2", "/ip4/10.1.0.1/tcp/3", "/ip4/10.1.0.1/tcp/4", "/ip4/10.1.0.1/tcp/5"}
	for name, tt := range map[string]struct {
		providers, closer []*pb.Message_Peer
		want              int // that are known then
	}{
		"BadAddresses":  {providers: invented(t, 400, bad...), closer: invented(t, 100, bad...)},
		"Many":          {providers: invented(t, 400, slices.Concat(bad, good)...), closer: invented(t, 50, good...), want: 32},
		"NoIDs":         {providers: []*pb.Message_Peer{{}, {Id: []byte("nobody"), Addrs: [][]byte{ma.StringCast(good[0]).Bytes()}}, {Id: bytes.Repeat([]byte{1}, 1<<10)}}},
		"TooMany":       {providers: invented(t, maxDHTPeers+1, good[0])},
		"ManyAddresses": {providers: []*pb.Message_Peer{{Id: []byte("x"), Addrs: make([][]byte, maxParts+1)}}},
		"TooLarge":      {providers: []*pb.Message_Peer{{Id: make([]byte, maxDHTMessage)}}},
	} {
		t.Run(name, func(t *testing.T) {
			net := newMemNet(t)
			rogue := startKadRogue(t, net, func(m *pb.Message) []byte {
				if m.Type != pb.Message_GET_PROVIDERS {
					return nil
				}
				b, err := proto.Marshal(&pb.Message{Type: m.Type, Key: m.Key, ProviderPeers: tt.providers, CloserPeers: tt.closer})
				if err != nil {
					t.Error(err)
				}
				return b
			})
			_, roots := rootOf(t, "a layer")
			node := net.node(t, Config{DHT: true, Roots: roots}, nil, rogue)
			soon(t, "the first connection", func() bool { return len(rogue.got(pb.Message_FIND_NODE)) > 1 })
			ctx, cancel := context.WithCancel(t.Context())
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = node.Get(ctx, ipfstest.Blocks(t, 1, 100)[0].Cid) })
			soon(t, "a question", func() bool { return len(rogue.got(pb.Message_GET_PROVIDERS)) > 0 })
			f := node.online.finder
			count := func() int { f.mu.Lock(); defer f.mu.Unlock(); return len(f.found) }
			if tt.want > 0 {
				soon(t, "the finding", func() bool { return count() > 0 })
			}
			cancel()
			reading.Wait()
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
			if got := count(); got < tt.want || got > 2*tt.want { // the layer and the block are asked for
				t.Errorf("%d providers are known, want %d of each answer", got, tt.want)
			}
			for id, c := range f.found {
				if len(c.info.Addrs) > maxFoundAddrs || slices.ContainsFunc(c.info.Addrs, func(a ma.Multiaddr) bool { return checkFound(a, false) != nil }) {
					t.Errorf("%s is to be dialled at %v", id, c.info.Addrs)
				}
			}
		})
	}
}

// TestNoValues asks a node of the DHT for values, and gives it some: it hangs up.
func TestNoValues(t *testing.T) {
	net := newMemNet(t)
	node := net.node(t, Config{DHT: true}, nil)
	client := net.host(t)
	if err := client.Connect(t.Context(), peer.AddrInfo{ID: node.online.host.ID()}); err != nil {
		t.Fatal(err)
	}
	for of, answers := range map[pb.Message_MessageType]bool{
		pb.Message_PUT_VALUE: false, pb.Message_GET_VALUE: false, pb.Message_PING: true,
	} {
		s, err := client.NewStream(t.Context(), node.online.host.ID(), dht.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		b, err := proto.Marshal(&pb.Message{Type: of, Key: []byte("/pk/x")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(framed(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := readKad(s); (err == nil) != answers {
			t.Errorf("%s: %v", of, err)
		}
	}
}

// TestDHTMessages lets through what nodes send, and nothing that is more than that when it is decoded.
func TestDHTMessages(t *testing.T) {
	marshal := func(m *pb.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tt := range map[string]struct {
		b  []byte
		ok bool
	}{
		"Empty":         {nil, true},
		"Full":          {marshal(&pb.Message{CloserPeers: invented(t, 21, "/ip4/10.0.0.1/tcp/1"), ProviderPeers: invented(t, 288, "/ip4/10.0.0.1/tcp/1")}), true},
		"ManyPeers":     {bytes.Repeat([]byte{0x42, 0}, maxDHTPeers+1), false},
		"ManyOfBoth":    {bytes.Repeat([]byte{0x42, 0, 0x4a, 0}, maxDHTPeers/2+1), false},
		"ManyAddresses": {marshal(&pb.Message{CloserPeers: []*pb.Message_Peer{{Addrs: make([][]byte, maxParts+1)}}}), false},
		"NoProtobuf":    {[]byte("GET / HTTP/1.1"), false},
		"BadPeer":       {[]byte{0x42, 1, 0xff}, false},
	} {
		if err := checkDHTMessage(tt.b); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
