package objects

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
)

// A hasher hashes objects as the importer of the profile would, and compares with the CIDs
// that they are named after. It reads from the disk where it can: what is in memory may be
// right although the disk has lost it. One goroutine may use it at a time.
type hasher struct {
	buf  []byte      // as aligned as direct reads want it
	info os.FileInfo // of the file that was hashed last, nil if it could not be opened
	// read is called with the bytes of each piece that was read. An error ends it.
	read func(n int) error
}

// alignment is what direct reads want of memory, offsets and lengths on every disk.
const alignment = 4096

// verifyObject hashes one object.
func verifyObject(path string) error {
	_, err := new(hasher).hash(path)
	return err
}

// hash returns the file that an object is. An error that isWrong is about what it holds, any
// other about reading it.
func (h *hasher) hash(path string) (ipfs.File, error) {
	c, err := cid.Decode(filepath.Base(path))
	if err != nil {
		return ipfs.File{}, fmt.Errorf("its name is no CID: %w", ipfs.ErrHash)
	}
	f := ipfs.File{Cid: c}
	h.info = nil
	r, err := openDisk(path)
	if err != nil {
		return f, err
	}
	defer r.close()
	info, err := r.file.Stat()
	if err != nil {
		return f, err
	}
	f.Size, h.info = info.Size(), info
	if isRaw(c) {
		if f.Size > ipfs.MaxBlock {
			return f, ipfs.ErrTooLarge
		}
		data, err := h.piece(r, 0, f.Size)
		if err != nil {
			return f, err
		}
		return f, ipfs.Verify(c, data)
	}
	// Its name does not say how it was cut. Most are files.
	err = fmt.Errorf("%d bytes: %w", f.Size, ipfs.ErrHash)
	for _, f.Layout = range layouts {
		if f.NumLeaves() == 1 { // such a file is a raw leaf, never this
			continue
		}
		if f.Leaves, err = h.leaves(r, f); err != nil {
			return f, err
		}
		if err = f.Check(); err == nil {
			return f, nil
		}
	}
	return f, err
}

func (h *hasher) leaves(r *diskFile, f ipfs.File) (string, error) {
	var leaves strings.Builder
	off := int64(0)
	for i := range f.NumLeaves() {
		data, err := h.piece(r, off, int64(f.LeafLen(i)))
		off += int64(f.LeafLen(i))
		if err != nil {
			return "", err
		}
		block, err := ipfs.NewBlock(cid.Raw, data)
		if err != nil {
			return "", err
		}
		digest, _ := digestOf(block.Cid)
		leaves.WriteString(digest)
	}
	return leaves.String(), nil
}

// piece reads n bytes; they are valid until the next call.
func (h *hasher) piece(r *diskFile, off, n int64) ([]byte, error) {
	whole := (n + alignment - 1) / alignment * alignment
	if int64(len(h.buf)) < whole {
		h.buf = aligned(whole)
	}
	got, err := r.readAt(h.buf[:whole], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if int64(got) < n {
		return nil, fmt.Errorf("it ends at byte %d: %w", off+int64(got), ipfs.ErrHash)
	}
	if h.read != nil {
		if err := h.read(int(n)); err != nil {
			return nil, err
		}
	}
	return h.buf[:n], nil
}

// aligned returns memory that begins at a multiple of alignment.
func aligned(n int64) []byte {
	buf := make([]byte, n+alignment)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % alignment
	return buf[skip : int64(skip)+n]
}

// A diskFile is a file that is read past the page cache, if the file system can.
type diskFile struct {
	path   string
	file   *os.File
	direct bool
}

// openDisk opens a file. Its access time does not move, if that is allowed.
func openDisk(path string) (*diskFile, error) {
	for _, flags := range []int{unix.O_DIRECT | unix.O_NOATIME, unix.O_NOATIME, 0} {
		f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
		if err == nil {
			return &diskFile{path, f, flags&unix.O_DIRECT != 0}, nil
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return nil, err
		}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: unix.EINVAL}
}

func (d *diskFile) close() { _ = d.file.Close() } // it was only read

// readAt reads as io.ReaderAt does.
func (d *diskFile) readAt(p []byte, off int64) (int, error) {
	n, err := d.file.ReadAt(p, off)
	if !d.direct || !errors.Is(err, unix.EINVAL) {
		return n, err
	}
	// This disk wants more of direct reads, or a read was cut short: the usual way then.
	f, err := os.Open(d.path)
	if err != nil {
		return n, err
	}
	d.close()
	d.file, d.direct = f, false
	return d.file.ReadAt(p, off)
}
