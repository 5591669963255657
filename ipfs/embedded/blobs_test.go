package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

const someDigest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

// one says that a node has the blob of someDigest, as the file with this root.
func one(root cid.Cid) func(context.Context, string) (ipfs.File, bool) {
	return func(_ context.Context, digest string) (ipfs.File, bool) {
		return ipfs.File{Cid: root, Size: 7}, digest == someDigest
	}
}

// find lists what peers say.
func find(t *testing.T, n *Node, digest string, key cid.Cid) (said []string) {
	t.Helper()
	n.FindBlob(t.Context(), digest, key, func(peer string, b ipfs.File) bool {
		said = append(said, fmt.Sprint(peer, " ", b.Cid, " ", b.Size))
		return false
	})
	return said
}

// knows waits until a node knows that others speak the protocol.
func knows(t *testing.T, n *Node, others ...*Node) {
	t.Helper()
	soon(t, "knowing who speaks the protocol", func() bool {
		for _, other := range others {
			if speaks, err := n.online.host.Peerstore().SupportsProtocols(other.online.host.ID(), BlobsProtocol); err != nil || len(speaks) == 0 {
				return false
			}
		}
		return true
	})
}

// TestFindBlob asks peers of which one has a blob, one has another, and one tells nobody.
func TestFindBlob(t *testing.T) {
	root := ipfstest.Blocks(t, 1, 10)[0].Cid
	net := newMemNet(t)
	has := net.node(t, Config{Blobs: one(root)}, nil)
	not := net.node(t, Config{Blobs: func(context.Context, string) (ipfs.File, bool) { return ipfs.File{}, false }}, nil)
	mute := net.node(t, Config{}, nil)
	n := net.node(t, Config{}, nil, has.online.host, not.online.host, mute.online.host)
	knows(t, n, has, not, mute)
	want := fmt.Sprint(has.ID(), " ", root, " 7")
	if said := find(t, n, someDigest, cid.Undef); len(said) != 1 || said[0] != want {
		t.Errorf("peers say %q, want %q", said, want)
	}
	if said := find(t, n, someDigest[:len(someDigest)-1]+"0", cid.Undef); len(said) > 0 {
		t.Errorf("of another blob peers say %q", said)
	}
	if said := find(t, Offline(ipfstest.NewMemory()), someDigest, cid.Undef); len(said) > 0 {
		t.Errorf("a node that is offline hears %q", said)
	}
}

// TestFindBlobByKey has a node find one that it is not connected to, by a third that knows who has what.
func TestFindBlobByKey(t *testing.T) {
	net := newMemNet(t)
	block := ipfstest.Blocks(t, 1, 10)[0]
	middle := net.node(t, Config{DHT: true}, nil)
	none := func(context.Context) []cid.Cid { return nil }
	publisher := net.node(t, Config{
		DHT: true, Roots: none, Keys: func(context.Context) []cid.Cid { return []cid.Cid{block.Cid} }, Blobs: one(block.Cid),
	}, nil, middle.online.host)
	reader := net.node(t, Config{DHT: true, Roots: none}, nil, middle.online.host)
	soon(t, "the publisher's record", func() bool {
		found, _ := reader.online.dht.Find(t.Context(), block.Cid)
		return len(found) == 1
	})
	want := fmt.Sprint(publisher.ID(), " ", block.Cid, " 7")
	soon(t, "the finding", func() bool {
		said := find(t, reader, someDigest, block.Cid)
		return len(said) == 1 && said[0] == want
	})
}

// TestSilentPeers has peers that say nothing, and that say what is no answer: asking takes no longer than they may take, and they are not asked again at once.
func TestSilentPeers(t *testing.T) {
	net := newMemNet(t)
	quiet, asked := net.host(t), make(chan struct{}, 10)
	quiet.SetStreamHandler(BlobsProtocol, func(s network.Stream) { asked <- struct{}{} })
	var hosts []host.Host
	for _, answer := range []string{"", "{", `{"root":"b","size":1}`, `{"root":1}`, `{"root":"` + strings.Repeat("b", maxReply) + `"}`, "\xff", `{"root":"bafkqaaa","size":1}`} {
		h := net.host(t)
		h.SetStreamHandler(BlobsProtocol, func(s network.Stream) {
			_, _ = io.WriteString(s, answer)
			_ = s.Close()
		})
		hosts = append(hosts, h)
	}
	root := ipfstest.Blocks(t, 1, 10)[0].Cid
	honest := net.node(t, Config{Blobs: one(root)}, nil)
	n := net.node(t, Config{}, nil, append(hosts, quiet, honest.online.host)...)
	knows(t, n, honest)
	for _, h := range append(hosts, quiet) {
		soon(t, "knowing that it speaks the protocol", func() bool {
			speaks, err := n.online.host.Peerstore().SupportsProtocols(h.ID(), BlobsProtocol)
			return err == nil && len(speaks) > 0
		})
	}
	for range 3 {
		if said := find(t, n, someDigest, cid.Undef); len(said) != 1 || !strings.HasPrefix(said[0], honest.ID()) {
			t.Errorf("peers say %q", said)
		}
	}
	if len(asked) != 1 {
		t.Errorf("a silent peer was asked %d times", len(asked))
	}
}

// TestLied bans who says what is wrong again and again.
func TestLied(t *testing.T) {
	net := newMemNet(t)
	liar := net.node(t, Config{Blobs: one(ipfstest.Blocks(t, 1, 10)[0].Cid)}, nil)
	n := net.node(t, Config{}, nil, liar.online.host)
	knows(t, n, liar)
	for range maxBad {
		n.Lied(t.Context(), liar.ID(), io.ErrUnexpectedEOF)
	}
	if n.online.book.bannedFor(liar.online.host.ID()) == 0 {
		t.Error("a liar is not banned")
	}
	if said := find(t, n, someDigest, cid.Undef); len(said) > 0 {
		t.Errorf("a liar was asked: %q", said)
	}
}

// TestQuestions asks a node what is no question.
func TestQuestions(t *testing.T) {
	net := newMemNet(t)
	h := net.host(t)
	n := net.node(t, Config{Blobs: one(ipfstest.Blocks(t, 1, 10)[0].Cid)}, nil, h)
	soon(t, "the connection", func() bool { return h.Network().Connectedness(n.online.host.ID()) == network.Connected })
	for text, want := range map[string]string{
		`{"digest":"` + someDigest + `"}`:                `"size":7`,
		`{"digest":"` + someDigest + `","later":1}`:      `"size":7`,
		`{"digest":"other"}`:                             "{}",
		`{"digest":7}`:                                   "",
		`{"digest":"` + strings.Repeat("x", maxQuestion): "",
		"": "",
	} {
		s, err := h.NewStream(t.Context(), n.online.host.ID(), BlobsProtocol)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(s, text)
		_ = s.CloseWrite()
		got, _ := io.ReadAll(s)
		if want == "" && len(got) > 0 || !bytes.Contains(got, []byte(want)) {
			t.Errorf("%q is answered with %q, want %q", text, got, want)
		}
	}
}

// TestWithheld has peers ask for what is kept from them, over our own protocol and over bitswap.
func TestWithheld(t *testing.T) {
	blocks := ipfstest.Blocks(t, 2, 1000)
	store := ipfstest.NewMemory()
	if err := store.Put(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
	own := offered{store, func(c cid.Cid) bool { return c.Equals(blocks[0].Cid) }}
	for _, s := range []interface {
		Has(context.Context, cid.Cid) (bool, error)
	}{own, served{own}} {
		for i, b := range blocks {
			if has, err := s.Has(t.Context(), b.Cid); err != nil || has != (i == 1) {
				t.Errorf("%T has block %d: %v, %v", s, i, has, err)
			}
		}
	}
	if _, err := (served{own}).GetSize(t.Context(), blocks[0].Cid); err == nil {
		t.Error("bitswap is told the size of what is withheld")
	}
	// Nor out of a file that is coming, or in a form that is kept for peers.
	source := &blockSource{Store: own, offered: own}
	source.more = everything(blocks[0].Data)
	if data, err := source.Get(t.Context(), blocks[0].Cid); err == nil {
		t.Errorf("%d bytes of what is withheld come out of a file that is coming", len(data))
	}
	if has, err := source.Has(t.Context(), blocks[0].Cid); err != nil || has {
		t.Errorf("a file that is coming has what is withheld: %v", err)
	}
	if _, _, ok := own.forms(everything(blocks[0].Data)).Form(blocks[0].Cid); ok {
		t.Error("there is a form of what is withheld")
	}
	net := newMemNet(t)
	publisher := net.node(t, Config{Withheld: own.withheld}, store)
	n := net.node(t, Config{Timeout: 300 * time.Millisecond}, nil, publisher.online.host)
	if data, err := n.Get(t.Context(), blocks[1].Cid); err != nil || !bytes.Equal(data, blocks[1].Data) {
		t.Errorf("what is not withheld: %v", err)
	}
	if _, err := n.Get(t.Context(), blocks[0].Cid); !errNotFound(err) {
		t.Errorf("what is withheld: %v", err)
	}
	if data, err := publisher.Get(t.Context(), blocks[0].Cid); err != nil || !bytes.Equal(data, blocks[0].Data) {
		t.Errorf("the node itself: %v", err)
	}
}

// FuzzReply parses what peers answer: a blob has a root of sha2-256, and a size.
func FuzzReply(f *testing.F) {
	for _, seed := range replies() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseReply(bytes.NewReader(data))
		if err == nil && b.Cid.Defined() && (b.Size <= 0 || !ipfs.IsSHA256(b.Cid)) {
			t.Errorf("%q: %v, %d", data, b.Cid, b.Size)
		}
	})
}

func replies() []string {
	return []string{
		"{}", `{"root":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku","size":7}`,
		`{"root":"bafkqaaa","size":1}`, `{"root":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku","size":-1}`, `[`, "",
	}
}

// TestReplySeeds says that the fuzz target begins with answers, and with what is none.
func TestReplySeeds(t *testing.T) {
	good, bad := 0, 0
	for _, seed := range replies() {
		if _, err := parseReply(strings.NewReader(seed)); err == nil {
			good++
		} else {
			bad++
		}
	}
	if good < 2 || bad < 3 {
		t.Errorf("%d answers, %d that are none", good, bad)
	}
}

// TestBlobExamples asks what spec/blobs.md has asked, of a node that has that blob and of one that has not.
func TestBlobExamples(t *testing.T) {
	text, err := os.ReadFile("../../spec/blobs.md")
	if err != nil {
		t.Fatal(err)
	}
	hello, err := ipfs.NewBlock(cid.Raw, []byte("hello\n"))
	if err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(hello.Data))
	net := newMemNet(t)
	h := net.host(t)
	has := net.node(t, Config{Blobs: func(_ context.Context, asked string) (ipfs.File, bool) {
		return ipfs.File{Cid: hello.Cid, Size: 6}, asked == digest
	}}, nil, h)
	other := net.node(t, Config{}, nil, h)
	rows := regexp.MustCompile("(?m)^\\| `(\\{.*\\})` \\| `(\\{.*\\})` \\| `(\\{.*\\})` \\|$").FindAllStringSubmatch(string(text), -1)
	if len(rows) == 0 {
		t.Fatal("there are no examples")
	}
	for _, row := range rows {
		for i, n := range []*Node{has, other} {
			soon(t, "the connection", func() bool { return h.Network().Connectedness(n.online.host.ID()) == network.Connected })
			s, err := h.NewStream(t.Context(), n.online.host.ID(), BlobsProtocol)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(s, row[1])
			_ = s.CloseWrite()
			if got, err := io.ReadAll(s); err != nil || strings.TrimSpace(string(got)) != row[2+i] {
				t.Errorf("%s is answered with %s, %v; want %s", row[1], got, err, row[2+i])
			}
		}
	}
}

// everything has one block, whatever is asked for.
type everything []byte

func (e everything) Leaf(cid.Cid) ([]byte, error)        { return e, nil }
func (e everything) HasLeaf(cid.Cid) bool                { return true }
func (e everything) Form(cid.Cid) ([]byte, int, bool)    { return e, len(e), true }
func (e everything) Keep(c cid.Cid, frame []byte, n int) {}
