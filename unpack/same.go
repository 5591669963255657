//go:build linux

package unpack

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// compareBuffer is how much of each file is read at a time to compare two.
const compareBuffer = 64 << 10

// sameFile says whether a file that was copied up is as it was, by what containerd goes by:
// mode, owner, device and capabilities; for what is no directory also size and time. Times
// without a fraction of a second may have been cut, as in most tars: then the contents
// decide.
func sameFile(lowPath, nowPath string, low, now os.FileInfo) (bool, error) {
	a, b := statOf(low), statOf(now)
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return false, nil
	}
	if same, err := sameCapabilities(lowPath, nowPath); !same || err != nil {
		return false, err
	}
	if now.IsDir() {
		return true, nil
	}
	if low.Size() != now.Size() || !low.ModTime().Equal(now.ModTime()) {
		return false, nil
	}
	switch {
	case now.ModTime().Nanosecond() != 0:
		return true, nil
	case now.Mode()&os.ModeSymlink != 0:
		return sameTarget(lowPath, nowPath)
	case now.Mode().IsRegular():
		return sameContent(lowPath, nowPath)
	}
	return true, nil
}

func sameCapabilities(low, now string) (bool, error) {
	a, err := capabilities(low)
	if err != nil {
		return false, err
	}
	b, err := capabilities(now)
	return a == b, err
}

func capabilities(path string) (string, error) {
	value, err := sysx.LGetxattr(path, "security.capability")
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	return string(value), err
}

func sameTarget(low, now string) (bool, error) {
	a, err := os.Readlink(low)
	if err != nil {
		return false, err
	}
	b, err := os.Readlink(now)
	return a == b, err
}

// sameContent compares two regular files of the same size.
func sameContent(low, now string) (bool, error) {
	a, err := os.Open(low)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := os.Open(now)
	if err != nil {
		return false, err
	}
	defer b.Close()
	return sameBytes(a, b)
}

func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, compareBuffer), make([]byte, compareBuffer)
	for {
		n, aerr := io.ReadFull(a, x)
		m, berr := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		for _, err := range []error{aerr, berr} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if aerr != nil { // as many bytes, so that both have ended
			return true, nil
		}
	}
}
