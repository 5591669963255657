package layer

import (
	"os"

	"github.com/hinshun/ipcs/ipfs"
)

// A Tree is what a chain of layers shows: names, and the inodes behind them.
type Tree struct {
	Nodes  []Node // Nodes[0] is the root
	Inodes []Inode
}

// A Node is one name of a tree.
type Node struct {
	Name     string
	Inode    int32
	Children []int32 // numbers of nodes, sorted by the bytes of their names
}

// An Inode is a file, directory, symlink, device or fifo of a tree. Names that are hard
// links of each other share one.
type Inode struct {
	Digest    string // regular files, as in Entry
	Target    string
	Extra     *Extra
	Mtime     int64
	Size      int64
	MtimeNsec uint32
	Mode      os.FileMode
	UID, GID  uint32
	Nlink     uint32
	Whiteout  bool // only without a bottom: a character device 0:0 for the mount below
	Opaque    bool // only without a bottom: hides what lies below
}

// File returns the file of a regular inode.
func (n *Inode) File() ipfs.File {
	var leaves string
	if n.Extra != nil {
		leaves = n.Extra.Leaves
	}
	return makeFile(n.Digest, n.Size, leaves)
}

// Xattrs returns the extended attributes, sorted by name.
func (n *Inode) Xattrs() []Xattr {
	if n.Extra == nil {
		return nil
	}
	return n.Extra.Xattrs
}

// Device returns the device number of a device.
func (n *Inode) Device() (major, minor uint32) {
	if n.Extra == nil {
		return 0, 0
	}
	return n.Extra.Major, n.Extra.Minor
}

// Merge lays layers on top of each other, bottom first. Without a bottom, the group
// lies above other layers: whiteouts and opaque marks are kept for them.
func Merge(layers []*Index, bottom bool) (*Tree, error) { return nil, errSkeleton }
