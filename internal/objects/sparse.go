package objects

import (
	"os"

	"golang.org/x/sys/unix"
)

// writeSparse writes data at off of a file of size bytes in all. Zeroes are left out:
// a leaf of nothing else becomes a hole.
func writeSparse(f *os.File, data []byte, off, size int64) error {
	if isZero(data) {
		if len(data) == 0 {
			return nil
		}
		return growTo(f, size)
	}
	if _, err := f.WriteAt(data, off); err != nil {
		// Give back what a full disk took of this leaf; the rest of the file is good.
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(len(data)))
		return err
	}
	return nil
}

// growTo makes the file at least size bytes long.
func growTo(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}

// zeroes is what isZero compares with, a page at a time.
var zeroes [4096]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroes))
		if string(b[:n]) != string(zeroes[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
