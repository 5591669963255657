package lazyfs

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fdcache"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	// ttl is how long the kernel may keep what never changes.
	ttl = time.Hour
	// maxFDs bounds the complete objects that are kept open.
	maxFDs = 256
)

var _ fuse.RawFileSystem = (*fileSystem)(nil)

// fileSystem answers the kernel. What it does not implement answers ENOSYS.
type fileSystem struct {
	fuse.RawFileSystem
	files Files
	rd    Reader
	log   *slog.Logger

	nodes *nodes
	fds   *fdcache.Cache[uint64] // by node
	stop  chan struct{}          // closed by Unmount
	// invalidate makes the kernel look a file up again when it is opened next.
	invalidate func(c cid.Cid)
	observe    func(f ipfs.File, off, size int64)

	requests, lookups, reads, local, errors atomic.Int64
}

func newFileSystem(files Files, rd Reader, logger *slog.Logger) *fileSystem {
	return &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		files:         files, rd: rd, log: logger,
		nodes: newNodes(), fds: fdcache.New[uint64](maxFDs), stop: make(chan struct{}), invalidate: func(cid.Cid) {}, observe: func(ipfs.File, int64, int64) {},
	}
}

// String names the file system in debug logs.
func (*fileSystem) String() string { return "ipcs" }

// dirNode returns the number of the directory with this name in a directory of directories.
func dirNode(parent uint64, name string) (uint64, bool) {
	if parent == rootNode {
		return hiddenNode, name == objects.Hidden
	}
	return shardNode(name)
}

// Lookup finds shards by their names, and in them the files that are known. What is not
// known now may be known soon, so its absence is not remembered.
func (fs *fileSystem) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	fs.lookups.Add(1)
	out.SetEntryTimeout(ttl)
	out.SetAttrTimeout(ttl)
	if h.NodeId == rootNode || h.NodeId == hiddenNode {
		id, ok := dirNode(h.NodeId, name)
		if !ok {
			return fuse.ENOENT
		}
		out.NodeId = id
		dirAttr(id, &out.Attr)
		return fuse.OK
	}
	if id, ok := shardNode(objects.Shard(name)); !ok || id != h.NodeId {
		return fuse.ENOENT
	}
	c, err := cid.Decode(name)
	if err != nil || c.String() != name {
		return fuse.ENOENT
	}
	// The node is there before the claims are looked at, so that Recheck sees it if a claim
	// comes later.
	n := fs.nodes.lookup(c)
	f, err := fs.settle(cancel, h.Caller, c)
	if err != nil {
		fs.Forget(n.id, 1)
		return status(err)
	}
	n.setFile(f)
	out.NodeId = n.id
	fileAttr(n, &out.Attr)
	return fuse.OK
}

// restore takes up a file that the kernel knows from another process.
func (fs *fileSystem) restore(k relay.Node) {
	c, err := cid.Decode(k.Name)
	if isDir(k.ID) || err != nil {
		return
	}
	n := fs.nodes.restore(k.ID, c, k.Lookups)
	n.setFile(ipfs.File{Cid: c, Size: int64(k.Size)})
	n.restored = true
}

// file returns the file of a node. Of one that was restored only the CID and the size are
// known: the rest is what a layer says of a file of this size.
func (fs *fileSystem) file(n *node) (ipfs.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.restored {
		return n.claim, nil
	}
	for f := range fs.files.Claims(n.cid) {
		if f.Size == n.claim.Size && plausible(f, n.cid) {
			n.claim, n.restored = f, false
			return f, nil
		}
	}
	return ipfs.File{}, fmt.Errorf("%s: no layer has this file any more", n.cid)
}

// plausible refuses the one false claim of a size that no read would find out: the
// kernel does not even ask for the content of an empty file.
func plausible(f ipfs.File, c cid.Cid) bool {
	empty := sha256.Sum256(nil)
	return f.Cid.Equals(c) && f.Size >= 0 && (f.Size > 0 || c.Equals(ipfs.RawCid(string(empty[:]))))
}

// Forget takes back what Lookup gave.
func (fs *fileSystem) Forget(id, lookups uint64) {
	if fs.nodes.forget(id, lookups) {
		fs.fds.Drop(id)
	}
}

// GetAttr answers from memory.
func (fs *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(ttl)
	if isDir(in.NodeId) {
		dirAttr(in.NodeId, &out.Attr)
		return fuse.OK
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	fileAttr(n, &out.Attr)
	return fuse.OK
}

func dirAttr(id uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: id, Mode: syscall.S_IFDIR | 0o555, Nlink: 2, Blksize: 4096}
}

func fileAttr(n *node, a *fuse.Attr) {
	size := uint64(n.file().Size)
	*a = fuse.Attr{Ino: n.id, Mode: syscall.S_IFREG | 0o444, Nlink: 1, Size: size, Blocks: (size + 511) / 512, Blksize: 4096}
}

// Open tells the kernel to open files without asking.
func (fs *fileSystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// OpenDir refuses: there is no list of all that could be looked up. But the root can be
// listed, as an overlay does that has it as an ordinary layer, and seems to be empty.
func (fs *fileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	if in.NodeId == rootNode {
		return fuse.OK
	}
	return fuse.EACCES
}

// ReadDir lists nothing.
func (*fileSystem) ReadDir(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status {
	return fuse.OK
}

// ReadDirPlus lists nothing.
func (*fileSystem) ReadDirPlus(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status {
	return fuse.OK
}

// ReleaseDir has nothing to release.
func (*fileSystem) ReleaseDir(*fuse.ReleaseIn) {}

// GetXAttr tells the kernel never to ask again.
func (fs *fileSystem) GetXAttr(<-chan struct{}, *fuse.InHeader, string, []byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// StatFs says what a file system of unknown size says.
func (fs *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.NameLen = 4096, 255
	return fuse.OK
}
