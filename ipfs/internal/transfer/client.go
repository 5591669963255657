package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// ErrBusy says that a server has not answered so many wants that there is no room for more.
var ErrBusy = errors.New("the peer has too many wants without an answer")

// A Want is what a client asks for, or takes back.
type Want struct {
	Cid    cid.Cid // IsWantable
	Rank   uint8   // the lower, the sooner
	Have   bool    // only whether it is there
	News   bool    // with Have: if it is not, also when it has come
	Cancel bool    // the block is not wanted any more
}

// State is how a want was answered.
type State int

// The states.
const (
	Absent State = iota // it is not there
	Here                // it is there; the block was not wanted
	Sent                // Block is it
)

// An Answer is one want's. A want that was cancelled may be answered with its block, if that was
// on its way, and else has no answer. One for news may be answered Absent first, and then Here.
type Answer struct {
	Cid   cid.Cid
	State State
	Asked bool // it is the answer to whether the block is there
	Block ipfs.Block
}

// A Client is the side of a stream that wants blocks. One goroutine may send and another
// receive.
type Client struct {
	stream   io.Writer
	codec    *Codec
	received *counter
	last     atomic.Int64 // when bytes came last, as of time.Time.UnixNano

	mu     sync.Mutex
	next   uint64
	open   map[uint64]asked   // without an answer
	blocks map[cid.Cid]uint64 // those of open that want the block
	news   map[cid.Cid]uint64 // those of open that want news of it
}

// asked is a want without an answer.
type asked struct {
	cid       cid.Cid
	rank      uint8
	have      bool
	news      bool // open until it is answered with Here
	awaited   bool // of news: it was answered with Absent
	cancelled bool
}

// Received counts what the clients of a node receive.
type Received struct{ counter }

// Counts returns what was received.
func (r *Received) Counts() Counts { return r.counts() }

// NewClient returns the client of a stream.
func NewClient(stream io.Writer, codec *Codec, received *Received) *Client {
	return &Client{
		stream: stream, codec: codec, received: &received.counter,
		open: make(map[uint64]asked), blocks: make(map[cid.Cid]uint64), news: make(map[cid.Cid]uint64),
	}
}

// Send asks for blocks. A block that was asked for already, and is still to come, is not
// asked for twice, unless it is more urgent now: then the earlier want is taken back.
func (c *Client) Send(wants []Want) error {
	for len(wants) > 0 {
		n := min(len(wants), maxRequest/(2*maxAsk)) // a want may take one back
		if err := c.send(wants[:n]); err != nil {
			return err
		}
		wants = wants[n:]
	}
	return nil
}

func (c *Client) send(wants []Want) error {
	body, err := c.encode(wants)
	if err != nil || len(body) == 0 {
		return err
	}
	buf := binary.AppendUvarint(make([]byte, 0, len(body)+binary.MaxVarintLen64), uint64(len(body)))
	if _, err := c.stream.Write(append(buf, body...)); err != nil {
		return fmt.Errorf("send wants: %w", err)
	}
	return nil
}

func (c *Client) encode(wants []Want) (body []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range wants {
		if id, there := c.news[w.Cid]; there && (w.Cancel || !w.Have) {
			body = c.takeBack(body, id) // it is known, or will be
		}
		id, there := c.blocks[w.Cid]
		if there && !w.Cancel && !w.Have && w.Rank < c.open[id].rank && len(c.open) < MaxUnanswered {
			body = c.takeBack(body, id)
			there = false
		}
		switch {
		case w.Cancel && there:
			body = c.takeBack(body, id)
		case w.Cancel || there:
		case len(c.open) >= MaxUnanswered:
			return nil, ErrBusy
		default:
			a := ask{verb: wantBlock, rank: w.Rank, cid: w.Cid}
			old, told := c.news[w.Cid]
			switch {
			case w.Have && w.News:
				if told && !c.open[old].awaited {
					continue // the answer is to come
				}
				if told {
					body = c.takeBack(body, old) // whoever asks again wants an answer
				}
				a.verb = wantNews
				c.news[w.Cid] = c.next
			case w.Have:
				a.verb = wantHave
			default:
				c.blocks[w.Cid] = c.next
			}
			c.open[c.next] = asked{cid: w.Cid, rank: w.Rank, have: w.Have, news: a.verb == wantNews}
			c.next++
			body = appendAsk(body, a)
		}
	}
	return body, nil
}

// takeBack cancels a want of a block, or of news of it; the caller holds mu.
func (c *Client) takeBack(body []byte, id uint64) []byte {
	w := c.open[id]
	c.forget(w.cid, id)
	w.cancelled = true
	c.open[id] = w
	return appendAsk(body, ask{verb: wantCancel, id: id})
}

// Receive calls fn with the answers of each frame that comes, and returns when the stream
// ends, which is no error between frames. The error is ErrProtocol or ipfs.ErrHash, wrapped,
// if the peer is to blame: what fn was given before is right all the same.
func (c *Client) Receive(stream io.Reader, fn func([]Answer)) error {
	r := &wireReader{r: stream, last: &c.last}
	buf := bufio.NewReaderSize(r, writePiece)
	for {
		before := r.n - buf.Buffered()
		h, err := readHeader(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answers, err := c.frame(buf, h)
		c.received.add(size(answers), r.n-buf.Buffered()-before)
		fn(answers)
		if err != nil {
			return err
		}
	}
}

// LastRead returns when bytes came last, also of a frame that is not complete.
func (c *Client) LastRead() time.Time { return time.Unix(0, c.last.Load()) }

// wireReader counts what is read.
type wireReader struct {
	r    io.Reader
	n    int
	last *atomic.Int64
}

func (r *wireReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += n
	if n > 0 {
		r.last.Store(time.Now().UnixNano())
	}
	return n, err
}

func size(answers []Answer) (n int) {
	for _, a := range answers {
		n += len(a.Block.Data)
	}
	return n
}

// frame reads the rest of a frame, and verifies what it holds.
func (c *Client) frame(r *bufio.Reader, h header) (answers []Answer, err error) {
	wants, err := c.close(h)
	if err != nil {
		return nil, err
	}
	var data []byte
	if h.kind == frameRaw || h.kind == frameZstd {
		if data, err = readBlocks(r, h, c.codec); err != nil {
			return nil, err
		}
	}
	answers = make([]Answer, 0, len(wants))
	for i, w := range wants {
		end := h.parts[i].size
		block := data[:end:end]
		data = data[end:]
		a := Answer{Cid: w.cid, State: Absent, Asked: w.have}
		switch h.kind {
		case frameHere:
			a.State = Here
		case frameRaw, frameZstd:
			a.State = Sent
			if a.Block, err = ipfs.VerifiedBlock(w.cid, block); err != nil {
				return answers, err
			}
		}
		if w.cancelled && a.State != Sent {
			continue
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// close returns the wants that a frame answers. They are then no longer open.
func (c *Client) close(h header) ([]asked, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wants := make([]asked, len(h.parts))
	for i, p := range h.parts {
		w, ok := c.open[p.id]
		if !ok {
			return nil, fmt.Errorf("%w: an answer to want %d, which has one or was never made", ErrProtocol, p.id)
		}
		if (h.kind == frameHere) != w.have && h.kind != frameAbsent && !w.cancelled {
			return nil, fmt.Errorf("%w: a frame of kind %d answers want %d", ErrProtocol, h.kind, p.id)
		}
		wants[i] = w
		if w.news && h.kind == frameAbsent {
			if w.awaited {
				return nil, fmt.Errorf("%w: want %d is answered twice with no", ErrProtocol, p.id)
			}
			w.awaited = true // one more answer is to come
			c.open[p.id] = w
			continue
		}
		delete(c.open, p.id)
		c.forget(w.cid, p.id)
	}
	return wants, nil
}

// forget forgets what is open for a block, if it is this want; the caller holds mu.
func (c *Client) forget(block cid.Cid, id uint64) {
	for _, of := range []map[cid.Cid]uint64{c.blocks, c.news} {
		if open, there := of[block]; there && open == id {
			delete(of, block)
		}
	}
}
