//go:build linux

package metafs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/hinshun/ipcs/internal/erofs"
)

// What overlayfs is told of files whose data are elsewhere, with and without userxattr.
const (
	suffixMetacopy = ".overlay.metacopy"
	suffixRedirect = ".overlay.redirect"
)

// hidden says whether an attribute is not shown: where files have their data, overlayfs must
// not look for them.
func (fs *fileSystem) hidden(name string) bool {
	return len(fs.data) > 0 && (isFor(name, suffixMetacopy) || isFor(name, suffixRedirect))
}

func isFor(name, suffix string) bool {
	space, ok := strings.CutSuffix(name, suffix)
	return ok && (space == "trusted" || space == "user")
}

// Read reads from the first folder that has the file.
func (fs *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	st, err := fs.stat(in.NodeId)
	if err != nil {
		return nil, errno(err)
	}
	if st.Size == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	f, err := fs.open(&st)
	if err != nil {
		fs.log.Error("cannot read a file", "inode", st.Nid, "error", err)
		return nil, fuse.EIO
	}
	defer f.Close()
	// The path names what the file holds, but maybe not how much: that is the index's claim.
	if info, err := f.Stat(); err != nil || uint64(info.Size()) != st.Size {
		fs.log.Error("a file is not as long as its layer says", "inode", st.Nid, "path", f.Name(), "claimed", st.Size, "error", err)
		return nil, fuse.EIO
	}
	n, err := f.ReadAt(buf, int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, readStatus(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// readStatus keeps what a reader may act upon. The lazy file system says it in the same way.
func readStatus(err error) fuse.Status {
	var no syscall.Errno
	if errors.As(err, &no) && slices.Contains([]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EINTR}, no) {
		return fuse.Status(no)
	}
	return fuse.EIO
}

// open opens the data of a file.
func (fs *fileSystem) open(st *erofs.Stat) (*os.File, error) {
	for name, value := range fs.image.Xattrs(st) {
		if !isFor(name, suffixRedirect) {
			continue
		}
		path := strings.TrimPrefix(string(value), "/")
		if !filepath.IsLocal(path) {
			return nil, fmt.Errorf("%w: redirect to %q", erofs.ErrFormat, value)
		}
		var errs []error
		for _, dir := range fs.data {
			fd, err := syscall.Open(filepath.Join(dir, path), syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0)
			if err == nil {
				return os.NewFile(uintptr(fd), path), nil
			}
			errs = append(errs, fmt.Errorf("open %s/%s: %w", dir, path, err))
			if !errors.Is(err, syscall.ENOENT) {
				break
			}
		}
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("%w: a file of %d bytes with no data", erofs.ErrFormat, st.Size)
}
