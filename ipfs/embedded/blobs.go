package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/hinshun/ipcs/ipfs"
)

// BlobsProtocol is by which nodes ask each other for the files of blobs: spec/blobs.md.
const BlobsProtocol protocol.ID = "/ipcs/blobs/1.0.0"

const (
	// maxQuestion and maxReply bound the two messages of the protocol.
	maxQuestion, maxReply = 512, 512
	// questionStreams is how many questions a peer may have under way in one direction, and maxQuestions how many of all peers are answered at a time.
	questionStreams, maxQuestions = 32, 128
	// peerQuestions is how many of them may wait to be read.
	peerQuestions = 16
	// questionTime is how long a peer may take to ask, and to read the answer.
	questionTime = 5 * time.Second
	// askTime is how long peers may take to answer. Who takes longer is not asked for mutedTime.
	askTime, mutedTime = 500 * time.Millisecond, 30 * time.Second
	// brokenTime is for how long a peer is not asked that did not give what it said it has.
	brokenTime = 5 * time.Minute
	// maxAsked is how many peers are asked at most.
	maxAsked = 128
	// seekTime is how long it may take to find peers that are not connected.
	seekTime = time.Second
)

type question struct {
	Digest string `json:"digest"`
}

// reply is empty if the peer has not got it, or gives it to nobody.
type reply struct {
	Root string `json:"root,omitempty"`
	Size int64  `json:"size,omitempty"`
}

// blobs asks peers for the files of blobs, and answers them.
type blobs struct {
	host  host.Host
	book  *peerBook
	slots chan struct{} // has an element for each question that is being answered
	// lookup is what peers are told; nil: nothing.
	lookup func(ctx context.Context, digest string) (ipfs.File, bool)

	mu     sync.Mutex
	muted  map[peer.ID]time.Time
	asking map[peer.ID]int // questions that are being read or answered
	closed bool
	wg     sync.WaitGroup
}

func newBlobs(h host.Host, book *peerBook, lookup func(context.Context, string) (ipfs.File, bool)) *blobs {
	return &blobs{host: h, book: book, lookup: lookup, slots: make(chan struct{}, maxQuestions), muted: map[peer.ID]time.Time{}, asking: map[peer.ID]int{}}
}

// start answers peers until close; ctx is that of answers.
func (b *blobs) start(ctx context.Context) {
	b.host.SetStreamHandler(BlobsProtocol, func(s network.Stream) {
		p := s.Conn().RemotePeer()
		if !b.begin(p) {
			_ = s.Reset() // it may be over already
			return
		}
		defer b.end(p)
		if b.answer(ctx, s) != nil { // the peer's business
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

// close waits for what is being answered.
func (b *blobs) close() {
	b.host.RemoveStreamHandler(BlobsProtocol)
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *blobs) begin(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.book.bannedFor(p) > 0 || b.asking[p] >= peerQuestions {
		return false
	}
	b.asking[p]++
	b.wg.Add(1)
	return true
}

func (b *blobs) end(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asking[p]--; b.asking[p] == 0 {
		delete(b.asking, p)
	}
	b.wg.Done()
}

// errAsked says that too many questions are answered already.
var errAsked = errors.New("too many questions")

func (b *blobs) answer(ctx context.Context, s network.Stream) error {
	if err := s.SetDeadline(time.Now().Add(questionTime)); err != nil {
		return err
	}
	var q question
	if err := json.NewDecoder(io.LimitReader(s, maxQuestion)).Decode(&q); err != nil {
		return err
	}
	select { // only now: who says nothing is in nobody's way
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	default:
		return errAsked
	}
	var r reply
	if b.lookup != nil {
		if blob, ok := b.lookup(ctx, q.Digest); ok {
			r = reply{Root: blob.Cid.String(), Size: blob.Size}
		}
	}
	return json.NewEncoder(s).Encode(r)
}

// parseReply returns what a peer has answered: the file of LayoutBlob, without its leaves, and no CID if it has none.
func parseReply(r io.Reader) (ipfs.File, error) {
	var answer reply
	if err := json.NewDecoder(io.LimitReader(r, maxReply)).Decode(&answer); err != nil {
		return ipfs.File{}, fmt.Errorf("answer of a peer: %w", err)
	}
	if answer.Root == "" {
		return ipfs.File{}, nil
	}
	root, err := cid.Decode(answer.Root)
	if err == nil && (answer.Size <= 0 || !isSHA256(root)) {
		err = errors.New("no file has this root and size")
	}
	if err != nil {
		return ipfs.File{}, fmt.Errorf("answer of a peer, %.100q: %w", answer.Root, err)
	}
	return ipfs.File{Cid: root, Size: answer.Size, Layout: ipfs.LayoutBlob}, nil
}

// ask asks one peer.
func (b *blobs) ask(ctx context.Context, p peer.ID, digest string) (ipfs.File, error) {
	s, err := b.host.NewStream(network.WithNoDial(ctx, "only peers that are connected"), p, BlobsProtocol)
	if err != nil {
		return ipfs.File{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer func() {
		if stop() {
			_ = s.Reset() // all was read
		}
	}()
	if err := json.NewEncoder(s).Encode(question{digest}); err != nil {
		return ipfs.File{}, err
	}
	if err := s.CloseWrite(); err != nil {
		return ipfs.File{}, err
	}
	return parseReply(s)
}

// who are the peers that may be asked, in any order, besides those in asked.
func (b *blobs) who(asked map[peer.ID]bool) (list []peer.ID) {
	now := time.Now()
	for _, p := range b.host.Network().Peers() {
		b.mu.Lock()
		muted := now.Before(b.muted[p])
		b.mu.Unlock()
		speaks, err := b.host.Peerstore().SupportsProtocols(p, BlobsProtocol)
		if !asked[p] && !muted && err == nil && len(speaks) > 0 && b.book.bannedFor(p) == 0 {
			list = append(list, p)
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), maxAsked)]
}

// mute has a peer that did not answer, or not give what it has answered, left out for a while.
func (b *blobs) mute(p peer.ID, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for q, until := range b.muted {
		if now.After(until) {
			delete(b.muted, q)
		}
	}
	b.muted[p] = now.Add(d)
}

type answered struct {
	peer peer.ID
	blob ipfs.File
}

// askAll asks peers at the same time, and gives fn what they say in the order in which they do, until fn says that it is enough.
func (b *blobs) askAll(ctx context.Context, peers []peer.ID, digest string, fn func(string, ipfs.File) bool) (enough bool) {
	asking, cancel := context.WithTimeout(ctx, askTime)
	answers := make(chan answered, len(peers))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, p := range peers {
		wg.Go(func() {
			blob, err := b.ask(asking, p, digest)
			if err != nil && ctx.Err() == nil && errors.Is(asking.Err(), context.DeadlineExceeded) {
				b.mute(p, mutedTime)
			}
			answers <- answered{p, blob}
		})
	}
	for range peers {
		a := <-answers
		if a.blob.Cid.Defined() && fn(a.peer.String(), a.blob) {
			return true
		}
	}
	return false
}

// FindBlob asks the connected peers for the file of a blob, all at the same time, and gives fn what they say, one after the other, until it returns true. If
// none of that is enough and key is defined, whoever routers and the DHT name for it are connected and asked as well. When nobody has it this takes a round trip, and half a
// second at most where a peer is silent, and a second longer with key. What peers say is not proven.
func (n *Node) FindBlob(ctx context.Context, digest string, key cid.Cid, fn func(peer string, f ipfs.File) (enough bool)) {
	if n.online == nil {
		return
	}
	o, asked := n.online, map[peer.ID]bool{}
	for _, seek := range []bool{false, true} {
		if seek {
			if !key.Defined() || !o.finder.seek(ctx, key) {
				return
			}
		}
		peers := o.blobs.who(asked)
		for _, p := range peers {
			asked[p] = true
		}
		if o.blobs.askAll(ctx, peers, digest, fn) {
			return
		}
	}
}

// Broke says that a peer did not give a blob that it said it has: it is not asked for a while.
func (n *Node) Broke(id string) {
	if p, err := peer.Decode(id); err == nil && n.online != nil {
		n.online.blobs.mute(p, brokenTime)
	}
}

// Lied says that what a peer said of a blob is wrong: it counts as a wrong block does.
func (n *Node) Lied(ctx context.Context, id string, err error) {
	if p, perr := peer.Decode(id); perr == nil && n.online != nil {
		n.online.exchange.misbehaved(ctx, p, err)
	}
}
