package erofs

import (
	"fmt"
	"math"
	"strings"
)

// image is a tree, and where each of its inodes lies. Per inode it holds what
// directories must know of others; the rest is worked out again in each pass.
type image struct {
	tree   Tree
	nids   []uint32 // slot of each inode
	types  []byte
	parent []uint32 // the directory that names it first; the root's is itself
	inode  Inode    // the one at hand
	head   [inodeSize]byte
	xattrs []byte   // its extended attributes, encoded
	dir    []dirent // its entries, with "." and ".."

	metaEnd uint64 // bytes of superblock and inodes, whole blocks
	blocks  uint64 // of the whole image
}

// noParent marks inodes that no directory has named yet.
const noParent = math.MaxUint32

func newImage(t Tree) *image {
	n := t.Len()
	img := &image{tree: t, nids: make([]uint32, n), types: make([]byte, n), parent: make([]uint32, n)}
	for i := range img.parent {
		img.parent[i] = noParent
	}
	return img
}

// load gets inode i from the tree.
func (img *image) load(i int) *Inode {
	img.inode = Inode{Xattrs: img.inode.Xattrs[:0], Entries: img.inode.Entries[:0]}
	img.tree.Inode(i, &img.inode)
	return &img.inode
}

// plan checks the tree and gives each inode its place.
func (img *image) plan() error {
	if len(img.nids) == 0 || uint64(len(img.nids)) >= noParent {
		return fmt.Errorf("%w: %d inodes", ErrTree, len(img.nids))
	}
	var data uint64
	off := uint64(blockSize)
	twice := make(map[uint32]struct{}) // named by more than one entry
	for i := range img.nids {
		n := img.load(i)
		s, err := img.shape(n)
		if err == nil && img.types[i] == typeUnknown {
			img.types[i] = fileType(n.Mode)
			err = img.adopt(i, n.Entries, twice)
		}
		if err != nil {
			return fmt.Errorf("inode %d: %w", i, err)
		}
		off = place(off, &s)
		if off/slotSize > math.MaxUint32 {
			return fmt.Errorf("inode %d: %w: no room for inodes", i, ErrTooLarge)
		}
		img.nids[i] = uint32(off / slotSize)
		off += s.length()
		data += s.blocks
	}
	img.metaEnd = alignBlock(off)
	img.blocks = img.metaEnd/blockSize + data
	if img.blocks >= nullAddr {
		return fmt.Errorf("%w: %d blocks", ErrTooLarge, img.blocks)
	}
	return img.checkLinks(twice)
}

// place returns where an inode goes that may begin at off: at the next slot, or so much
// later that what is inline does not cross a block. Chunk tables may cross.
func place(off uint64, s *shape) uint64 {
	off = alignSlot(off)
	if s.layout != layoutInline {
		return off
	}
	tail := off + uint64(inodeSize+s.xattrs)
	if room := blockSize - tail%blockSize; uint64(s.inline) > room {
		off = alignSlot(off + room)
	}
	return off
}

// shape checks one inode and returns how it lies. It encodes the extended attributes.
func (img *image) shape(n *Inode) (s shape, err error) {
	if img.xattrs, err = appendXattrs(img.xattrs[:0], n.Xattrs); err != nil {
		return s, err
	}
	s.xattrs = len(img.xattrs)
	if n.MtimeNsec >= 1e9 {
		return s, fmt.Errorf("%w: %d nanoseconds", ErrTree, n.MtimeNsec)
	}
	typ := fileType(n.Mode)
	if typ != typeDir && len(n.Entries) > 0 {
		return s, fmt.Errorf("%w: entries in what is no directory", ErrTree)
	}
	switch typ {
	case typeUnknown:
		return s, fmt.Errorf("%w: mode %o has no type", ErrTree, n.Mode)
	case typeDir:
		s.setData(dirSize(n.Entries))
	case typeSymlink:
		if n.Target == "" || len(n.Target) > maxTarget || strings.IndexByte(n.Target, 0) >= 0 {
			return s, fmt.Errorf("%w: symlink with a target of %d bytes, or with NUL", ErrTree, len(n.Target))
		}
		s.setData(uint64(len(n.Target)))
	case typeRegular:
		if n.Size > MaxFileSize {
			return s, fmt.Errorf("%w: file of %d bytes", ErrTooLarge, n.Size)
		}
		s.setChunks(n.Size)
	}
	return s, nil
}

// adopt notes directory i as the parent of what it names.
func (img *image) adopt(i int, entries []Dirent, twice map[uint32]struct{}) error {
	for j, e := range entries {
		if err := checkName(e.Name); err != nil {
			return err
		}
		if j > 0 && entries[j-1].Name >= e.Name {
			return fmt.Errorf("%w: %q after %q", ErrTree, e.Name, entries[j-1].Name)
		}
		if int(e.Inode) >= len(img.parent) || e.Inode == 0 {
			return fmt.Errorf("%w: %q names inode %d", ErrTree, e.Name, e.Inode)
		}
		if img.parent[e.Inode] != noParent {
			twice[e.Inode] = struct{}{}
			continue
		}
		img.parent[e.Inode] = uint32(i)
	}
	return nil
}

// checkLinks refuses inodes without a name, and directories with several.
func (img *image) checkLinks(twice map[uint32]struct{}) error {
	if img.types[0] != typeDir {
		return fmt.Errorf("%w: the root is no directory", ErrTree)
	}
	img.parent[0] = 0
	for i, p := range img.parent {
		if p == noParent {
			return fmt.Errorf("inode %d: %w: it has no name", i, ErrTree)
		}
		if _, ok := twice[uint32(i)]; ok && img.types[i] == typeDir {
			return fmt.Errorf("inode %d: %w: directory with several names", i, ErrTree)
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: name %.40q of %d bytes", ErrTree, name, len(name))
	}
	return nil
}
