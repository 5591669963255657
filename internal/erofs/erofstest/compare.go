//go:build linux

package erofstest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

// Compare checks that the mounted directory shows the tree.
func Compare(t *testing.T, mnt string, tree erofs.Inodes) {
	t.Helper()
	inos := make(map[uint32]uint64)
	var walk func(path string, i uint32)
	walk = func(path string, i uint32) {
		n := &tree[i]
		if len(path) >= unix.PathMax {
			t.Fatalf("path of %d bytes: compare cannot follow it", len(path))
		}
		compareInode(t, path, n, inos, i)
		if n.Mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		compareNames(t, path, n.Entries)
		for _, e := range n.Entries {
			walk(path+"/"+e.Name, e.Inode)
		}
	}
	walk(mnt, 0)
}

func compareInode(t *testing.T, path string, n *erofs.Inode, inos map[uint32]uint64, i uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat: %v", err)
	}
	got := fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	if want := fmt.Sprint(n.Mode, n.UID, n.GID, n.Mtime, n.MtimeNsec); got != want {
		t.Errorf("%q: mode, uid, gid, mtime are %s, want %s", path, got, want)
	}
	if ino, ok := inos[i]; ok && ino != st.Ino {
		t.Errorf("%q: hard links have inodes %d and %d", path, ino, st.Ino)
	}
	inos[i] = st.Ino
	isDir := n.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && uint32(st.Nlink) != n.Nlink {
		t.Errorf("%q: %d links, want %d", path, st.Nlink, n.Nlink)
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if uint64(st.Size) != n.Size {
			t.Errorf("%q: size %d, want %d", path, st.Size, n.Size)
		}
	case unix.S_IFLNK:
		if target, err := os.Readlink(path); err != nil || target != n.Target {
			t.Errorf("%q: target %.30q (%v), want %.30q", path, target, err, n.Target)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		want := unix.Mkdev(n.Rdev>>8&0xfff, n.Rdev&0xff|n.Rdev>>12&0xfff00)
		if st.Rdev != want {
			t.Errorf("%q: device %x, want %x", path, st.Rdev, want)
		}
	}
	compareXattrs(t, path, n.Xattrs)
}

func compareXattrs(t *testing.T, path string, want []erofs.Xattr) {
	t.Helper()
	buf := make([]byte, 1<<16)
	size, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Errorf("%q: listxattr: %v", path, err)
	}
	names := strings.FieldsFunc(string(buf[:size]), func(r rune) bool { return r == 0 })
	if len(names) != len(want) {
		t.Errorf("%q: %d extended attributes, want %d", path, len(names), len(want))
	}
	for _, x := range want {
		size, err := unix.Lgetxattr(path, x.Name, buf)
		if err != nil || string(buf[:max(size, 0)]) != x.Value {
			t.Errorf("%q: %.40q: %d bytes (%v), want %d", path, x.Name, size, err, len(x.Value))
		}
	}
}

func compareNames(t *testing.T, path string, want []erofs.Dirent) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Fatalf("%q: %d names, want %d", path, len(entries), len(want))
	}
	for i, e := range entries { // ReadDir sorts as Write wants it
		if e.Name() != want[i].Name {
			t.Fatalf("%q: name %d is %q, want %q", path, i, e.Name(), want[i].Name)
		}
	}
}
