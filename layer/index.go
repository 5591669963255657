package layer

import (
	"os"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
)

// An Index lists every path of one layer, in preorder: Entries[0] is the root
// directory, with the empty name, and the entries of a directory follow it, sorted by
// the bytes of their names, each with what is below it.
type Index struct {
	Entries []Entry
}

// An Entry is one path of a layer. The order of the fields keeps it small: a daemon
// holds hundreds of thousands.
type Entry struct {
	Name      string // last path component, the bytes of the tar: may be invalid UTF-8
	Digest    string // regular files: sha2-256 (32 bytes) of the root block of the file
	Target    string // symlinks
	Extra     *Extra // what few entries have; nil for none
	Mtime     int64  // seconds since 1970, may be negative
	Size      int64  // regular files
	MtimeNsec uint32
	Parent    int32       // number of the parent entry; -1 for the root
	Link      int32       // hard links: number of the entry that holds the inode; else -1
	Mode      os.FileMode // type and permission bits as continuity's manifest has them
	UID, GID  uint32
	Whiteout  bool // hides what lower layers have at this path; nothing else is set
	Opaque    bool // directory that hides what lower layers have in it
	Implied   bool // directory the tar has no entry for; lower layers decide what it is, else its GID counts
	// KeepXattrs marks a directory that was implied before its own entry came. The
	// extended attributes of the directory below stay, where this one sets no others.
	KeepXattrs bool
}

// Extra is what few entries have.
type Extra struct {
	Leaves       string  // files of more than one leaf: as in ipfs.File
	Xattrs       []Xattr // sorted by name
	Major, Minor uint32  // devices
}

// An Xattr is one extended attribute.
type Xattr struct{ Name, Value string }

// File returns the file of a regular entry, ready to be fetched.
func (e *Entry) File() ipfs.File { return makeFile(e.Digest, e.Size, e.Leaves()) }

// Leaves returns the digests of the leaves, as ipfs.File has them.
func (e *Entry) Leaves() string {
	if e.Extra == nil {
		return ""
	}
	return e.Extra.Leaves
}

// Xattrs returns the extended attributes, sorted by name.
func (e *Entry) Xattrs() []Xattr {
	if e.Extra == nil {
		return nil
	}
	return e.Extra.Xattrs
}

// Device returns the device number of a device.
func (e *Entry) Device() (major, minor uint32) {
	if e.Extra == nil {
		return 0, 0
	}
	return e.Extra.Major, e.Extra.Minor
}

func makeFile(digest string, size int64, leaves string) ipfs.File {
	f := ipfs.File{Size: size, Leaves: leaves}
	if leaves == "" {
		f.Cid = ipfs.RawCid(digest)
	} else {
		f.Cid = dagCid(digest)
	}
	return f
}

// Path returns the path of entry i, without a slash in front; the root's is empty.
func (x *Index) Path(i int) string {
	var names []string
	for ; i > 0; i = int(x.Entries[i].Parent) {
		names = append(names, x.Entries[i].Name)
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String()
}
