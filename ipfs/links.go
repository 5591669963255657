package ipfs

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"
)

// ErrNode says that a block is no dag-pb node although its CID says so.
var ErrNode = errors.New("malformed dag-pb node")

// Fields of dag-pb (PBNode, PBLink), and of UnixFS (Data).
const (
	fieldNodeData  = 1
	fieldNodeLinks = 2
	fieldLinkHash  = 1
	fieldDataType  = 1
	fieldDataSize  = 3
)

// Links returns what a block links to, in order, if it is a dag-pb node. Raw blocks link to
// nothing, and of other codecs, which nothing in ipcs uses, nothing is known. The bytes are
// taken to be those of the CID. The error is ErrNode, wrapped.
func Links(b Block) ([]cid.Cid, error) {
	if b.Cid.Prefix().Codec != cid.DagProtobuf {
		return nil, nil
	}
	var links []cid.Cid
	err := eachField(b.Data, fieldNodeLinks, func(link []byte) error {
		return eachField(link, fieldLinkHash, func(hash []byte) error {
			c, err := cid.Cast(hash)
			if err == nil {
				links = append(links, c)
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("links of %s: %w: %w", b.Cid, ErrNode, err)
	}
	return links, nil
}

// eachField calls fn with each value of a field that holds bytes.
func eachField(message []byte, field protowire.Number, fn func([]byte) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if num == field && typ == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if err := fn(value); err != nil {
				return err
			}
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
	}
	return nil
}

// eachNumber calls fn with each field that holds a number.
func eachNumber(message []byte, fn func(field protowire.Number, value uint64)) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if typ == protowire.VarintType {
			value, n := protowire.ConsumeVarint(message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			fn(num, value)
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
	}
	return nil
}
