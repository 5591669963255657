package erofs

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
)

// output counts what was written. Its error is that of the first write that failed.
type output struct {
	w     *bufio.Writer
	off   uint64
	err   error
	zeros [blockSize]byte
}

func newOutput(w io.Writer) *output { return &output{w: bufio.NewWriterSize(w, 256<<10)} }

func (o *output) write(b []byte) {
	if o.err == nil {
		_, o.err = o.w.Write(b)
	}
	o.off += uint64(len(b))
}

// fill writes zeros up to off, which is less than a block away.
func (o *output) fill(off uint64) { o.write(o.zeros[:off-o.off]) }

func (o *output) flush() error {
	if o.err == nil {
		o.err = o.w.Flush()
	}
	if o.err != nil {
		return fmt.Errorf("write EROFS image: %w", o.err)
	}
	return nil
}

// writeSuperblock writes block 0.
func (img *image) writeSuperblock(out *output, opts Options) {
	var b [blockSize]byte
	sb := b[superOffset:]
	le.PutUint32(sb, superMagic)
	le.PutUint32(sb[8:], compatChecksum|compatMtime)
	sb[12] = blockBits
	le.PutUint16(sb[14:], uint16(img.nids[0]))
	le.PutUint64(sb[16:], uint64(len(img.nids)))
	le.PutUint32(sb[36:], uint32(img.blocks))
	copy(sb[48:64], opts.UUID[:])
	le.PutUint32(sb[80:], incompatChunked)
	// The kernel's crc32c leaves out the inversion at the end.
	le.PutUint32(sb[4:], ^crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli)))
	out.write(b[:])
}

// writeInodes writes the inodes with all that is inline, each at its place.
func (img *image) writeInodes(out *output) error {
	next := img.metaEnd / blockSize // the first data block of the next inode that has any
	var tail [blockSize]byte
	for i := range img.nids {
		n := img.load(i)
		s, err := img.shape(n)
		if err != nil {
			return fmt.Errorf("inode %d: %w", i, err)
		}
		out.fill(uint64(img.nids[i]) * slotSize)
		img.header(i, n, &s, next)
		next += s.blocks
		out.write(img.head[:])
		out.write(img.xattrs)
		out.write(img.tail(tail[:0], i, n, &s))
		if out.err != nil {
			return out.flush()
		}
	}
	out.fill(img.metaEnd)
	return nil
}

// header encodes the fixed part of an inode into img.head. Its data blocks, if any,
// begin at block.
func (img *image) header(i int, n *Inode, s *shape, block uint64) {
	b := img.head[:]
	clear(b)
	le.PutUint16(b[0:], inodeExtended|s.layout<<1)
	if s.xattrs > 0 {
		le.PutUint16(b[2:], uint16((s.xattrs-xattrHeaderSize)/4+1))
	}
	le.PutUint16(b[4:], uint16(n.Mode))
	le.PutUint64(b[8:], s.size)
	union, nlink := uint32(nullAddr), n.Nlink
	switch img.types[i] {
	case typeRegular:
		if s.layout == layoutChunked {
			union = s.chunkBits
		}
	case typeDir:
		nlink = img.dirLinks(n)
		fallthrough
	case typeSymlink:
		if s.blocks > 0 {
			union = uint32(block)
		}
	default:
		union = n.Rdev
	}
	le.PutUint32(b[16:], union)
	le.PutUint32(b[20:], uint32(i+1))
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	le.PutUint64(b[32:], uint64(n.Mtime))
	le.PutUint32(b[40:], n.MtimeNsec)
	le.PutUint32(b[44:], nlink)
}

// dirLinks counts the links of a directory as other file systems do.
func (img *image) dirLinks(n *Inode) uint32 {
	links := uint32(len(dots))
	for _, e := range n.Entries {
		if img.types[e.Inode] == typeDir {
			links++
		}
	}
	return links
}

// tail returns what is inline behind the extended attributes. It may use b.
func (img *image) tail(b []byte, i int, n *Inode, s *shape) []byte {
	switch {
	case s.layout == layoutChunked:
		for range s.inline / chunkEntrySize {
			b = le.AppendUint32(b, nullAddr)
		}
		return b
	case s.layout != layoutInline:
		return nil
	case img.types[i] == typeSymlink:
		return append(b, n.Target...)
	}
	block, rest, _ := cutBlock(img.dirents(i, n.Entries))
	for len(rest) > 0 {
		block, rest, _ = cutBlock(rest)
	}
	b = b[:cap(b)]
	clear(b)
	return encodeDirents(b, block)
}

// writeData writes the blocks of directories and long symlinks.
func (img *image) writeData(out *output) error {
	var b [blockSize]byte
	for i, typ := range img.types {
		if typ != typeDir && typ != typeSymlink {
			continue
		}
		n := img.load(i)
		s, err := img.shape(n)
		if err != nil {
			return fmt.Errorf("inode %d: %w", i, err)
		}
		if s.blocks == 0 {
			continue
		}
		if typ == typeSymlink {
			clear(b[copy(b[:], n.Target):])
			out.write(b[:])
			continue
		}
		block, rest, _ := cutBlock(img.dirents(i, n.Entries))
		for range s.blocks {
			clear(b[:])
			encodeDirents(b[:], block)
			out.write(b[:])
			block, rest, _ = cutBlock(rest)
		}
		if out.err != nil {
			return out.flush()
		}
	}
	return nil
}
