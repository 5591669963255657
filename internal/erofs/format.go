package erofs

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/unix"
)

// The on-disk format, by the names of the kernel's erofs_fs.h.
const (
	blockBits = 12
	blockSize = 1 << blockBits
	slotSize  = 32 // of inodes; positions are counted in slots

	superOffset     = 1024
	superMagic      = 0xE0F5E1E2
	compatChecksum  = 0x1
	compatMtime     = 0x2 // times in inodes are mtimes, not ctimes
	incompatChunked = 0x4
	inodeSize       = 64
	inodeExtended   = 1
	layoutPlain     = 0
	layoutInline    = 2
	layoutChunked   = 4
	nullAddr        = 0xffffffff
	chunkEntrySize  = 4
	maxChunkBits    = 31 // the field has 5 bits
	maxChunks       = 256
	direntSize      = 12
	xattrHeaderSize = 12
	xattrEntrySize  = 4
	maxXattrValue   = 1<<16 - 1
	maxXattrBytes   = xattrHeaderSize + 4*(1<<16-2) // what i_xattr_icount can say
	maxName         = 255
	maxTarget       = 4095

	// inlineMax is the size up to which data is inline. What is inline must not cross
	// a block, so an inode may have to move to the next one; half a block wastes
	// least, at worst as much as a block of its own would.
	inlineMax = blockSize / 2
)

// Types of directory entries. Zero means that an inode was not planned yet.
const (
	typeUnknown = iota
	typeRegular
	typeDir
	typeChar
	typeBlock
	typeFifo
	typeSocket
	typeSymlink
)

var le = binary.LittleEndian

func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return typeRegular
	case unix.S_IFDIR:
		return typeDir
	case unix.S_IFCHR:
		return typeChar
	case unix.S_IFBLK:
		return typeBlock
	case unix.S_IFIFO:
		return typeFifo
	case unix.S_IFSOCK:
		return typeSocket
	case unix.S_IFLNK:
		return typeSymlink
	}
	return typeUnknown
}

// A shape is how one inode lies in the image.
type shape struct {
	layout    uint16
	xattrs    int    // bytes of extended attributes
	inline    int    // bytes of data behind them
	size      uint64 // i_size
	blocks    uint64 // data blocks elsewhere
	chunkBits uint32
}

// length returns the bytes of the inode with all that is inline.
func (s *shape) length() uint64 { return uint64(inodeSize + s.xattrs + s.inline) }

// setData chooses between inline and blocks for a symlink or directory of size bytes.
func (s *shape) setData(size uint64) {
	s.size = size
	s.layout = layoutPlain
	s.blocks = (size + blockSize - 1) / blockSize
	if tail := size % blockSize; tail > 0 && tail <= inlineMax {
		s.layout = layoutInline
		s.inline = int(tail)
		s.blocks--
	}
}

// setChunks makes a regular file of null chunks: as few as can say its size.
func (s *shape) setChunks(size uint64) {
	s.size = size
	s.layout = layoutPlain
	if size == 0 {
		return
	}
	s.layout = layoutChunked
	blocks := (size + blockSize - 1) / blockSize
	s.chunkBits = uint32(min(bits.Len64(blocks-1), maxChunkBits))
	chunks := (blocks + 1<<s.chunkBits - 1) >> s.chunkBits
	s.inline = int(chunks) * chunkEntrySize
}

func alignSlot(off uint64) uint64  { return (off + slotSize - 1) &^ (slotSize - 1) }
func alignBlock(off uint64) uint64 { return (off + blockSize - 1) &^ (blockSize - 1) }
