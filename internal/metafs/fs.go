//go:build linux

package metafs

import (
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/hinshun/ipcs/internal/erofs"
)

// ttl is how long the kernel may keep what never changes.
const ttl = 100 * time.Hour

var _ fuse.RawFileSystem = (*fileSystem)(nil)

// fileSystem answers the kernel from an image. What it does not implement answers ENOSYS.
type fileSystem struct {
	fuse.RawFileSystem
	image *erofs.Reader
	data  []string // folders with the data of files; none where overlayfs finds them
	log   *slog.Logger
}

func newFileSystem(image *erofs.Reader, data []string, log *slog.Logger) *fileSystem {
	return &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), image: image, data: data, log: log}
}

// String names the file system in debug logs.
func (*fileSystem) String() string { return "ipcs metadata" }

// node returns the number that FUSE has for an inode: its own, but the root's is given. No
// inode lies where that would be, in the image's first block.
func (fs *fileSystem) node(nid uint64) uint64 {
	if nid == fs.image.Root() {
		return fuse.FUSE_ROOT_ID
	}
	return nid
}

func (fs *fileSystem) stat(node uint64) (erofs.Stat, error) {
	if node == fuse.FUSE_ROOT_ID {
		node = fs.image.Root()
	}
	return fs.image.Stat(node)
}

func (fs *fileSystem) attr(st *erofs.Stat, a *fuse.Attr) {
	*a = fuse.Attr{
		Ino: st.Nid, Mode: st.Mode, Nlink: st.Nlink, Size: st.Size, Blocks: (st.Size + 511) / 512, Blksize: 4096, Rdev: st.Rdev,
		Owner: fuse.Owner{Uid: st.UID, Gid: st.GID},
		Mtime: uint64(st.Mtime), Mtimensec: st.MtimeNsec,
	}
	a.Atime, a.Atimensec, a.Ctime, a.Ctimensec = a.Mtime, a.Mtimensec, a.Mtime, a.Mtimensec
}

func (fs *fileSystem) entry(st *erofs.Stat, out *fuse.EntryOut) {
	out.NodeId = fs.node(st.Nid)
	out.SetEntryTimeout(ttl)
	out.SetAttrTimeout(ttl)
	fs.attr(st, &out.Attr)
}

// Lookup finds a name. That there is none may be kept, too.
func (fs *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := fs.stat(h.NodeId)
	if err != nil {
		return errno(err)
	}
	e, err := fs.image.Lookup(&dir, name)
	if errno(err) == fuse.ENOENT {
		out.SetEntryTimeout(ttl)
		return fuse.OK // with node 0
	}
	if err != nil {
		return errno(err)
	}
	st, err := fs.image.Stat(e.Nid)
	if err != nil {
		return errno(err)
	}
	fs.entry(&st, out)
	return fuse.OK
}

// Forget has nothing to forget.
func (*fileSystem) Forget(uint64, uint64) {}

// GetAttr says what an inode is.
func (fs *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	st, err := fs.stat(in.NodeId)
	if err != nil {
		return errno(err)
	}
	out.SetTimeout(ttl)
	fs.attr(&st, &out.Attr)
	return fuse.OK
}

// Readlink says where a symlink leads.
func (fs *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	st, err := fs.stat(h.NodeId)
	if err != nil {
		return nil, errno(err)
	}
	target, err := fs.image.Target(&st)
	return target, errno(err)
}

// Open tells the kernel to open files without asking.
func (*fileSystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// OpenDir tells the kernel to open directories without asking, and to keep what they hold.
func (*fileSystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// ReadDir lists a directory.
func (fs *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, err := fs.stat(in.NodeId)
	if err != nil {
		return errno(err)
	}
	for next, e := range fs.image.Entries(&dir, erofs.Position(in.Offset)) {
		if !out.AddDirEntry(fuse.DirEntry{Name: string(e.Name), Ino: e.Nid, Mode: e.Type, Off: uint64(next)}) {
			break
		}
	}
	return fuse.OK
}

// ReadDirPlus lists a directory, with what its entries are.
func (fs *fileSystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, err := fs.stat(in.NodeId)
	if err != nil {
		return errno(err)
	}
	for next, e := range fs.image.Entries(&dir, erofs.Position(in.Offset)) {
		name := string(e.Name)
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: name, Ino: e.Nid, Mode: e.Type, Off: uint64(next)})
		if entry == nil {
			break
		}
		if name == "." || name == ".." {
			continue // the kernel wants nothing more of these
		}
		st, err := fs.image.Stat(e.Nid)
		if err != nil {
			return errno(err)
		}
		fs.entry(&st, entry)
	}
	return fuse.OK
}

// GetXAttr returns the value of an extended attribute.
func (fs *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	st, err := fs.stat(h.NodeId)
	if err != nil {
		return 0, errno(err)
	}
	for n, value := range fs.image.Xattrs(&st) {
		if n != name || fs.hidden(n) {
			continue
		}
		if len(value) > len(dest) {
			return uint32(len(value)), fuse.ERANGE
		}
		return uint32(copy(dest, value)), fuse.OK
	}
	return 0, fuse.ENOATTR
}

// ListXAttr returns the names of the extended attributes.
func (fs *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	st, err := fs.stat(h.NodeId)
	if err != nil {
		return 0, errno(err)
	}
	var names []byte
	for n := range fs.image.Xattrs(&st) {
		if !fs.hidden(n) {
			names = append(append(names, n...), 0)
		}
	}
	if len(names) > len(dest) {
		return uint32(len(names)), fuse.ERANGE
	}
	return uint32(copy(dest, names)), fuse.OK
}

// StatFs says what a file system of unknown size says.
func (*fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.NameLen = 4096, 255
	return fuse.OK
}

// Access leaves permissions to the kernel.
func (*fileSystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status {
	return fuse.Status(syscall.ENOSYS)
}
