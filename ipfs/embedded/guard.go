package embedded

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// maxMessage is the size of the largest bitswap message that anybody sends.
	maxMessage = network.MessageSizeMax
	// maxParts bounds the wants, blocks and answers in one: decoded, a part of two bytes takes a
	// hundred.
	maxParts = 16384
	// messagesPerPeer bounds the bytes of messages that came from a peer, or are coming, and are
	// not handled yet, and allMessages those of all. Decoding takes three times as much at most.
	messagesPerPeer, allMessages = 8 << 20, 128 << 20
	// A message that has begun has to be there after messageTime, and one second for each messageRate.
	messageTime, messageRate = 10 * time.Second, 64 << 10
	// maxWrite is how long a peer may take to read a message that the server sends. Who takes
	// longer is hung up on, and so holds none of the server's workers.
	maxWrite = 30 * time.Second
)

var errMessage = errors.New("a peer sent what is no message of the protocol, or too much")

// guardedHost is what bitswap sees of libp2p. boxo's bitswap makes room for a message as soon as
// its size is announced, waits for the rest for ever, and decodes whatever it is. Through a
// guardedHost it is given whole messages that are fit to be decoded, and sends with deadlines.
type guardedHost struct {
	host.Host
	room *messageRoom
}

func newGuardedHost(h host.Host) guardedHost {
	return guardedHost{h, &messageRoom{held: map[peer.ID]int64{}, changed: make(chan struct{})}}
}

// SetStreamHandler implements host.Host.
func (h guardedHost) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) {
		m := newMessages(s, maxMessage, checkMessage, h.room)
		defer m.letGo()
		handle(m)
	})
}

// NewStream implements host.Host.
func (h guardedHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return hasty{s}, nil
}

// hasty hangs up on a peer that does not read.
type hasty struct{ network.Stream }

// SetWriteDeadline allows no later ones than maxWrite from now. bitswap sets one for each message.
func (s hasty) SetWriteDeadline(t time.Time) error {
	if latest := time.Now().Add(maxWrite); t.After(latest) {
		t = latest
	}
	return s.Stream.SetWriteDeadline(t)
}

func (s hasty) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		_ = s.Conn().Close() // what is left is over as well
	}
	return n, err
}

// messages is a stream of which whole messages are read, each with its size before it. It is read by one goroutine.
type messages struct {
	network.Stream
	in    *bufio.Reader
	max   uint64             // of a message's size
	check func([]byte) error // whether a message is fit to be decoded
	room  *messageRoom       // nil: whoever reads bounds how many there are
	rest  []byte             // of the message that is being read, with its size before it
	held  int64
}

func newMessages(s network.Stream, limit uint64, check func([]byte) error, room *messageRoom) *messages {
	return &messages{Stream: s, in: bufio.NewReaderSize(s, 4<<10), max: limit, check: check, room: room}
}

// Read implements io.Reader. When all of a message was read, the next Read says that it was
// handled.
func (m *messages) Read(b []byte) (int, error) {
	if len(m.rest) == 0 {
		m.letGo()
		if err := m.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// next reads a message, for whose first byte it waits for as long as the peer is there.
func (m *messages) next() error {
	if err := m.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := m.in.Peek(1); err != nil {
		return err
	}
	until := time.Now().Add(messageTime)
	if err := m.SetReadDeadline(until); err != nil {
		return err
	}
	size, err := binary.ReadUvarint(m.in)
	if err != nil {
		return noEnd(err)
	}
	if size > m.max {
		return fmt.Errorf("%w: of %d bytes, at most %d are allowed", errMessage, size, m.max)
	}
	until = until.Add(time.Duration(size) * time.Second / messageRate)
	if m.room != nil {
		if !m.room.take(m.Conn().RemotePeer(), int64(size), until) {
			return fmt.Errorf("%w: there is no room for it", errMessage)
		}
		m.held = int64(size)
	}
	if err := m.SetReadDeadline(until); err != nil {
		return err
	}
	buf := binary.AppendUvarint(make([]byte, 0, size+binary.MaxVarintLen64), size)
	head := len(buf)
	buf = buf[:head+int(size)]
	if _, err := io.ReadFull(m.in, buf[head:]); err != nil {
		return noEnd(err)
	}
	if err := m.check(buf[head:]); err != nil {
		return err
	}
	m.rest = buf
	return nil
}

func (m *messages) letGo() {
	if m.held == 0 {
		return
	}
	m.room.giveBack(m.Conn().RemotePeer(), m.held)
	m.held = 0
}

// noEnd makes an end within a message an error.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkMessage counts the parts of a bitswap message (the protobuf of
// https://specs.ipfs.tech/bitswap-protocol/), without decoding them.
func checkMessage(b []byte) error {
	const wantlist, blocks, payload, presences = 1, 2, 3, 4
	parts, err := countFields(b, blocks, payload, presences)
	if err != nil {
		return err
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[n:] // countFields has gone through all
		n = protowire.ConsumeFieldValue(num, typ, b)
		if num == wantlist && typ == protowire.BytesType {
			const entries = 1
			list, _ := protowire.ConsumeBytes(b)
			wants, err := countFields(list, entries)
			if err != nil {
				return err
			}
			parts += wants + 1
		}
		b = b[n:]
	}
	if parts > maxParts {
		return fmt.Errorf("%w: of %d parts, at most %d are allowed", errMessage, parts, maxParts)
	}
	return nil
}

// countFields counts the fields with one of these numbers.
func countFields(b []byte, nums ...protowire.Number) (count int, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return 0, fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		b = b[n:]
		for _, wanted := range nums {
			if num == wanted {
				count++
			}
		}
	}
	return count, nil
}

// messageRoom bounds the bytes of messages.
type messageRoom struct {
	mu      sync.Mutex
	all     int64
	held    map[peer.ID]int64
	changed chan struct{} // closed and replaced when room was given back
}

// take waits for room for n bytes from p, until some time.
func (r *messageRoom) take(p peer.ID, n int64, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		r.mu.Lock()
		if r.held[p]+n <= messagesPerPeer && r.all+n <= allMessages {
			r.held[p] += n
			r.all += n
			r.mu.Unlock()
			return true
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

func (r *messageRoom) giveBack(p peer.ID, n int64) {
	if n == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all -= n
	if r.held[p] -= n; r.held[p] == 0 {
		delete(r.held, p)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}
