package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"sort"

	"golang.org/x/sys/unix"
)

var (
	// ErrFormat says that bytes are no image that Write has made.
	ErrFormat = errors.New("not an EROFS image of this package")
	// ErrAbsent says that a directory has no entry of a name.
	ErrAbsent = errors.New("no such entry")
)

// A Reader reads an image that Write has made, where the kernel cannot. It holds nothing but
// the bytes, which must not change, and is safe for concurrent use. Whatever the bytes are,
// nothing is read beyond them.
type Reader struct {
	b    []byte
	root uint64
}

// A Stat is an inode of an image, by its nid.
type Stat struct {
	Nid       uint64
	Mode      uint32 // st_mode
	UID, GID  uint32
	Mtime     int64
	MtimeNsec uint32
	Size      uint64
	Rdev      uint32 // devices
	Nlink     uint32

	layout uint16
	block  uint32 // where the data begin
	xattrs []byte
	inline []byte // what follows the extended attributes, to the end of the image
}

// An Entry is a name in a directory.
type Entry struct {
	Name []byte
	Nid  uint64
	Type uint32 // the type bits of st_mode
}

// NewReader returns a Reader of an image.
func NewReader(image []byte) (*Reader, error) {
	if len(image) < blockSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(image))
	}
	sb := bytes.Clone(image[superOffset:blockSize])
	sum := le.Uint32(sb[4:])
	le.PutUint32(sb[4:], 0)
	switch {
	case le.Uint32(sb) != superMagic || sb[12] != blockBits:
		return nil, fmt.Errorf("%w: no superblock", ErrFormat)
	case sum != ^crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli)):
		return nil, fmt.Errorf("%w: checksum of the superblock", ErrFormat)
	}
	r := &Reader{b: image, root: uint64(le.Uint16(sb[14:]))}
	if st, err := r.Stat(r.root); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("%w: the root is no directory (%w)", ErrFormat, err)
	}
	return r, nil
}

// Root returns the nid of the root directory.
func (r *Reader) Root() uint64 { return r.root }

// Stat returns an inode.
func (r *Reader) Stat(nid uint64) (st Stat, err error) {
	size := uint64(len(r.b))
	if nid > size/slotSize || size-nid*slotSize < inodeSize {
		return st, fmt.Errorf("%w: no inode %d", ErrFormat, nid)
	}
	b := r.b[nid*slotSize:]
	format := le.Uint16(b)
	rest := b[inodeSize:]
	var xattrs uint64
	if count := uint64(le.Uint16(b[2:])); count > 0 {
		xattrs = xattrHeaderSize + 4*(count-1)
	}
	if format&1 != inodeExtended || xattrs > uint64(len(rest)) {
		return st, fmt.Errorf("%w: inode %d", ErrFormat, nid)
	}
	union := le.Uint32(b[16:])
	st = Stat{
		Nid: nid, Mode: uint32(le.Uint16(b[4:])), Size: le.Uint64(b[8:]), UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]),
		Mtime: int64(le.Uint64(b[32:])), MtimeNsec: le.Uint32(b[40:]), Nlink: le.Uint32(b[44:]),
		layout: format >> 1 & 7, block: union, xattrs: rest[:xattrs], inline: rest[xattrs:],
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
	default:
		st.Rdev = union
	}
	return st, nil
}

// data returns a block of a symlink or directory; the last one may be short.
func (r *Reader) data(st *Stat, i uint64) ([]byte, error) {
	left := st.Size - i*blockSize // the caller asks for blocks that there are
	n := min(left, blockSize)
	switch {
	case st.layout == layoutInline && left < blockSize && n <= uint64(len(st.inline)):
		return st.inline[:n], nil
	case st.layout == layoutInline && left < blockSize, st.layout != layoutInline && st.layout != layoutPlain:
		return nil, fmt.Errorf("%w: data of inode %d", ErrFormat, st.Nid)
	}
	off := (uint64(st.block) + i) * blockSize
	if i > uint64(len(r.b)) || off > uint64(len(r.b)) || n > uint64(len(r.b))-off {
		return nil, fmt.Errorf("%w: block %d of inode %d", ErrFormat, i, st.Nid)
	}
	return r.b[off : off+n], nil
}

// Target returns where a symlink leads.
func (r *Reader) Target(st *Stat) ([]byte, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size == 0 || st.Size > maxTarget {
		return nil, fmt.Errorf("%w: inode %d is no symlink", ErrFormat, st.Nid)
	}
	return r.data(st, 0)
}

// Xattrs yields the extended attributes of an inode: names and values.
func (r *Reader) Xattrs(st *Stat) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if len(st.xattrs) < xattrHeaderSize {
			return
		}
		for b := st.xattrs[xattrHeaderSize:]; len(b) >= xattrEntrySize; {
			name, value := int(b[0]), int(le.Uint16(b[2:]))
			prefix, ok := xattrPrefix(b[1])
			end := xattrEntrySize + name + value
			if !ok || end > len(b) {
				return
			}
			if !yield(prefix+string(b[xattrEntrySize:xattrEntrySize+name]), b[xattrEntrySize+name:end]) {
				return
			}
			b = b[min(len(b), (end+3)&^3):]
		}
	}
}

func xattrPrefix(number byte) (string, bool) {
	for _, ns := range xattrNamespaces {
		if ns.number == number {
			return ns.prefix, true
		}
	}
	return "", false
}

// A block of a directory: entries, and then their names.
type dirBlock []byte

// len returns the number of entries, of a block that is worth reading.
func (b dirBlock) len() (int, error) {
	if len(b) < direntSize {
		return 0, fmt.Errorf("%w: a directory's block of %d bytes", ErrFormat, len(b))
	}
	names := int(le.Uint16(b[8:]))
	if names < direntSize || names%direntSize != 0 || names > len(b) {
		return 0, fmt.Errorf("%w: a directory's block whose names begin at %d", ErrFormat, names)
	}
	return names / direntSize, nil
}

// entry returns an entry of n.
func (b dirBlock) entry(i, n int) Entry {
	d := b[i*direntSize:]
	from, to := int(le.Uint16(d[8:])), len(b)
	if i+1 < n {
		to = int(le.Uint16(d[direntSize+8:]))
	}
	from = min(from, len(b))
	to = min(max(to, from), len(b))
	name := b[from:to]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return Entry{Name: name, Nid: le.Uint64(d), Type: typeBits(d[10])}
}

// typeBits is the inverse of fileType.
func typeBits(t byte) uint32 {
	for _, mode := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFLNK} {
		if fileType(mode) == t {
			return mode
		}
	}
	return 0
}

// blocks returns how many blocks a directory has.
func (r *Reader) blocks(st *Stat) (uint64, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Size > uint64(len(r.b)) {
		return 0, fmt.Errorf("%w: inode %d is no directory", ErrFormat, st.Nid)
	}
	return (st.Size + blockSize - 1) / blockSize, nil
}

// Lookup finds a name in a directory, or ErrAbsent.
func (r *Reader) Lookup(st *Stat, name string) (Entry, error) {
	count, err := r.blocks(st)
	if err != nil {
		return Entry{}, err
	}
	// The last block whose first name is not behind this one has it.
	at := sort.Search(int(count), func(i int) bool {
		b, n, berr := r.dirBlock(st, uint64(i))
		if berr != nil {
			err = berr
			return true
		}
		return string(b.entry(0, n).Name) > name
	}) - 1
	if err != nil {
		return Entry{}, err
	}
	if at < 0 {
		return Entry{}, ErrAbsent
	}
	b, n, err := r.dirBlock(st, uint64(at))
	if err != nil {
		return Entry{}, err
	}
	i := sort.Search(n, func(i int) bool { return string(b.entry(i, n).Name) >= name })
	if i == n {
		return Entry{}, ErrAbsent
	}
	if e := b.entry(i, n); string(e.Name) == name {
		return e, nil
	}
	return Entry{}, ErrAbsent
}

func (r *Reader) dirBlock(st *Stat, i uint64) (dirBlock, int, error) {
	b, err := r.data(st, i)
	if err != nil {
		return nil, 0, err
	}
	n, err := dirBlock(b).len()
	return b, n, err
}

// A Position is a place in a directory: 0 is its beginning.
type Position uint64

const positionBits = 12 // a block has fewer entries

// Entries yields the entries of a directory from a position on, "." and ".." among them,
// each with the position behind it. What cannot be read ends it.
func (r *Reader) Entries(st *Stat, from Position) iter.Seq2[Position, Entry] {
	return func(yield func(Position, Entry) bool) {
		count, err := r.blocks(st)
		if err != nil {
			return
		}
		first := int(from & (1<<positionBits - 1))
		for i := uint64(from >> positionBits); i < count; i++ {
			b, n, err := r.dirBlock(st, i)
			if err != nil {
				return
			}
			for j := first; j < n; j++ {
				next := Position(i<<positionBits | uint64(j+1))
				if j+1 == n {
					next = Position((i + 1) << positionBits)
				}
				if !yield(next, b.entry(j, n)) {
					return
				}
			}
			first = 0
		}
	}
}
