package kubo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// importBatch is how many bytes of blocks go into one Put.
	importBatch = 8 << 20
	// importBlocks bounds a batch of tiny blocks.
	importBlocks = 4096
	// maxCarHeader bounds the header of a CAR: its roots.
	maxCarHeader = 64 << 10
	// maxSection bounds a section: a CID and a block.
	maxSection = ipfs.MaxBlock + 128
)

// carV2 begins a CARv2, which cannot be streamed from end to end.
var carV2 = []byte("\x0a\xa1\x67version\x02")

// writeCar writes a CARv1 (https://ipld.io/specs/transport/car/carv1/): a header that names the first
// block as root, and the blocks.
func writeCar(w io.Writer, blocks []ipfs.Block) error {
	if err := writeCarHeader(w, blocks[0].Cid); err != nil {
		return err
	}
	for _, b := range blocks {
		if err := writeSection(w, b.Cid.Bytes(), b.Data); err != nil {
			return err
		}
	}
	return nil
}

// writeCarHeader writes the header of a CARv1 with one root, in DAG-CBOR.
func writeCarHeader(w io.Writer, root cid.Cid) error {
	var header bytes.Buffer
	header.WriteString("\xa2\x65roots\x81\xd8\x2a\x58") // {"roots": [42(bytes
	header.WriteByte(byte(root.ByteLen() + 1))
	header.WriteByte(0) // the multibase prefix of binary
	header.Write(root.Bytes())
	header.WriteString("\x67version\x01")
	return writeSection(w, header.Bytes())
}

// writeSection writes the parts as one section, with their length before them.
func writeSection(w io.Writer, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if _, err := w.Write(binary.AppendUvarint(nil, uint64(n))); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// importCar puts the blocks of a CARv1, each verified, in batches, and returns its roots.
func importCar(ctx context.Context, dst ipfs.Putter, r io.Reader, stats *statsReply) ([]cid.Cid, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	if start, _ := br.Peek(len(carV2)); bytes.Equal(start, carV2) {
		return nil, usage("import failed: CARv2 is not supported; convert it to a CARv1")
	}
	car, err := carv2.NewBlockReader(br, carv2.MaxAllowedHeaderSize(maxCarHeader))
	if err != nil {
		return nil, usage("import failed: CAR header: %w", err)
	}
	batch := &batch{dst: dst}
	last := "the header"
	for {
		b, err := readBlock(br)
		if errors.Is(err, io.EOF) {
			return car.Roots, batch.flush(ctx)
		}
		if err != nil {
			return nil, usage("import failed after %s: %w", last, err)
		}
		if err := batch.add(ctx, b); err != nil {
			return nil, err
		}
		stats.BlockCount++
		stats.BlockBytesCount += uint64(len(b.Data))
		last = "block " + b.Cid.String()
	}
}

// readBlock reads a section, and verifies it. The error is io.EOF, and nothing that
// wraps it, only where a section could begin.
func readBlock(br *bufio.Reader) (ipfs.Block, error) {
	n, err := binary.ReadUvarint(br)
	if err == io.EOF {
		return ipfs.Block{}, err
	}
	if err != nil {
		return ipfs.Block{}, fmt.Errorf("length of a section: %w", err)
	}
	if n > maxSection {
		return ipfs.Block{}, fmt.Errorf("section of %d bytes: %w", n, ipfs.ErrTooLarge)
	}
	section := make([]byte, n)
	if _, err := io.ReadFull(br, section); err != nil {
		return ipfs.Block{}, fmt.Errorf("section of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	used, c, err := cid.CidFromBytes(section)
	if err != nil {
		return ipfs.Block{}, fmt.Errorf("CID of a section: %v", err)
	}
	return ipfs.VerifiedBlock(c, section[used:])
}

// batch gathers blocks for one Put.
type batch struct {
	dst    ipfs.Putter
	blocks []ipfs.Block
	size   int
}

func (b *batch) add(ctx context.Context, blk ipfs.Block) error {
	if b.size+len(blk.Data) > importBatch || len(b.blocks) == importBlocks {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	b.blocks = append(b.blocks, blk)
	b.size += len(blk.Data)
	return nil
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.blocks) == 0 {
		return nil
	}
	err := b.dst.Put(ctx, b.blocks...)
	b.blocks, b.size = nil, 0
	return err
}
