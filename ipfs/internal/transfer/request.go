package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// ID names the protocol and its version.
const ID = "/ipcs/blocks/1.0.0"

const (
	digestSize = 32
	// maxRequest bounds the bytes of a request.
	maxRequest = 64 << 10
	// MaxUnanswered bounds the wants on a stream that have no answer yet.
	MaxUnanswered = 8192
)

// ErrProtocol says that a peer does not keep to the protocol.
var ErrProtocol = errors.New("the peer broke the protocol")

// verb is what a client asks for.
type verb byte

const (
	wantBlock  verb = 0 // the block
	wantHave   verb = 1 // whether it is here
	wantCancel verb = 2 // no answer to an earlier want, if that is still to come
	wantNews   verb = 3 // wantHave, and again when it has come
)

// ask is one entry of a request.
type ask struct {
	verb verb
	rank uint8
	cid  cid.Cid // of a want
	id   uint64  // of a cancel: the number of the want, counted from 0
}

// maxAsk is the most bytes that one takes.
const maxAsk = 2 + binary.MaxVarintLen64 + digestSize

// appendAsk encodes one.
func appendAsk(b []byte, a ask) []byte {
	b = append(b, byte(a.verb))
	if a.verb == wantCancel {
		return binary.AppendUvarint(b, a.id)
	}
	b = append(b, a.rank)
	b = binary.AppendUvarint(b, a.cid.Prefix().Codec)
	hash := a.cid.Hash()
	return append(b, hash[len(hash)-digestSize:]...)
}

// parseAsks decodes what a request holds.
func parseAsks(b []byte) ([]ask, error) {
	var asks []ask
	for len(b) > 0 {
		a := ask{verb: verb(b[0])}
		b = b[1:]
		switch a.verb {
		case wantCancel:
			id, n := uvarint(b)
			if n <= 0 {
				return nil, fmt.Errorf("%w: a cancel names no want", ErrProtocol)
			}
			a.id, b = id, b[n:]
		case wantBlock, wantHave, wantNews:
			if len(b) == 0 {
				return nil, fmt.Errorf("%w: a want has no rank", ErrProtocol)
			}
			a.rank, b = b[0], b[1:]
			codec, n := uvarint(b)
			if n <= 0 || len(b) < n+digestSize {
				return nil, fmt.Errorf("%w: a want names no block", ErrProtocol)
			}
			hash, err := mh.Encode(b[n:n+digestSize], mh.SHA2_256)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
			}
			a.cid, b = cid.NewCidV1(codec, hash), b[n+digestSize:]
		default:
			return nil, fmt.Errorf("%w: entry of kind %d", ErrProtocol, a.verb)
		}
		asks = append(asks, a)
	}
	return asks, nil
}

// uvarint is binary.Uvarint for varints in their shortest form: n is not positive for others.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n > 1 && b[n-1] == 0 {
		return 0, -n
	}
	return v, n
}

// readRequest reads one request into buf, which has room for maxRequest, and decodes it.
// The error is io.EOF when the stream ended before one.
func readRequest(r *bufio.Reader, buf []byte) ([]ask, error) {
	size, err := readUvarint(r)
	if err != nil {
		return nil, err
	}
	if size > maxRequest {
		return nil, fmt.Errorf("%w: a request of %d bytes, at most %d are allowed", ErrProtocol, size, maxRequest)
	}
	if _, err := io.ReadFull(r, buf[:size]); err != nil {
		return nil, fmt.Errorf("read request: %w", noEOF(err))
	}
	return parseAsks(buf[:size])
}

// readUvarint reads a varint in its shortest form. The error is io.EOF if there is none.
func readUvarint(r *bufio.Reader) (uint64, error) {
	var buf [binary.MaxVarintLen64]byte
	for i := range buf {
		b, err := r.ReadByte()
		if err != nil {
			if i > 0 {
				err = noEOF(err)
			}
			return 0, err
		}
		buf[i] = b
		if b < 0x80 {
			v, n := uvarint(buf[:i+1])
			if n <= 0 {
				break
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("%w: a number is not in its shortest form", ErrProtocol)
}

// noEOF makes an end in the middle an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// IsWantable says whether a block can be asked for: its hash is sha2-256.
func IsWantable(c cid.Cid) bool {
	if !c.Defined() {
		return false
	}
	p := c.Prefix()
	return p.MhType == mh.SHA2_256 && p.MhLength == digestSize
}
