package erofs_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/hosttest"
)

// builder makes trees for tests.
type builder struct{ inodes erofs.Inodes }

func newBuilder() *builder {
	return &builder{erofs.Inodes{{Mode: unix.S_IFDIR | 0o755, Mtime: 1}}}
}

// add adds an inode to directory dir and returns its number.
func (b *builder) add(dir int, name string, n erofs.Inode) int {
	if n.Nlink == 0 {
		n.Nlink = 1
	}
	b.inodes = append(b.inodes, n)
	b.link(dir, name, len(b.inodes)-1)
	return len(b.inodes) - 1
}

func (b *builder) link(dir int, name string, inode int) {
	d := &b.inodes[dir]
	d.Entries = append(d.Entries, erofs.Dirent{Name: name, Inode: uint32(inode)})
}

func (b *builder) tree() erofs.Inodes {
	for i := range b.inodes {
		e := b.inodes[i].Entries
		sort.Slice(e, func(i, j int) bool { return e[i].Name < e[j].Name })
		x := b.inodes[i].Xattrs
		sort.Slice(x, func(i, j int) bool { return x[i].Name < x[j].Name })
	}
	return b.inodes
}

// mountTree writes a tree, lets fsck look at it, and mounts it.
func mountTree(t *testing.T, tree erofs.Inodes) string {
	t.Helper()
	hosttest.Root(t)
	dir := t.TempDir()
	path, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	var buf bytes.Buffer
	if err := erofs.Write(&buf, tree, erofs.Options{UUID: [16]byte{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%4096 != 0 {
		t.Fatalf("image of %d bytes is not whole blocks", buf.Len())
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	fsck(t, path)
	if err := unix.Mount(path, mnt, "erofs", unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return mnt
}

// fsck runs fsck.erofs where it is installed. It is an opinion more; the kernel's counts.
func fsck(t *testing.T, path string) {
	t.Helper()
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Logf("fsck.erofs is not installed: only the kernel checks the image")
		return
	}
	if out, err := exec.Command(tool, path).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
}

// compare checks that the mounted directory shows the tree.
func compare(t *testing.T, mnt string, tree erofs.Inodes) {
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

// randomTree makes a tree of about n inodes with all that an inode can be.
func randomTree(rng *rand.Rand, n int) erofs.Inodes {
	b := newBuilder()
	dirs, files := []int{0}, []int{}
	depth := map[int]int{}
	for i := range n {
		dir := dirs[rng.IntN(len(dirs))]
		name := fmt.Sprintf("%s%x", randomBytes(rng, rng.IntN(1+rng.IntN(240))), i)
		if len(files) > 0 && rng.IntN(20) == 0 {
			f := files[rng.IntN(len(files))]
			b.inodes[f].Nlink++
			b.link(dir, name, f)
			continue
		}
		node := randomInode(rng)
		if node.Mode&unix.S_IFMT == unix.S_IFDIR && depth[dir] >= 8 {
			node.Mode = unix.S_IFREG | 0o644
		}
		k := b.add(dir, name, node)
		if node.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, k)
			depth[k] = depth[dir] + 1
		} else {
			files = append(files, k)
		}
	}
	return b.tree()
}

func randomInode(rng *rand.Rand) erofs.Inode {
	types := []uint32{unix.S_IFREG, unix.S_IFREG, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK}
	n := erofs.Inode{
		Mode: types[rng.IntN(len(types))] | rng.Uint32N(0o10000),
		UID:  rng.Uint32(), GID: rng.Uint32(),
		Mtime: int64(rng.Uint64()) >> rng.IntN(64), MtimeNsec: rng.Uint32N(1e9),
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Size = rng.Uint64N(erofs.MaxFileSize) >> rng.IntN(52)
	case unix.S_IFLNK:
		n.Mode |= 0o777
		n.Target = "t" + randomBytes(rng, rng.IntN(4095)>>rng.IntN(12))
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Rdev = rng.Uint32()
	}
	user := n.Mode&unix.S_IFMT == unix.S_IFREG || n.Mode&unix.S_IFMT == unix.S_IFDIR
	for i := range rng.IntN(4) {
		prefix := []string{"trusted.", "security.", "user."}[rng.IntN(3)]
		if prefix == "user." && !user {
			prefix = "trusted." // the kernel lets only files and directories have others
		}
		n.Xattrs = append(n.Xattrs, erofs.Xattr{
			Name:  fmt.Sprintf("%sx%d%s", prefix, i, strings.Repeat("n", rng.IntN(200))),
			Value: randomBytes(rng, rng.IntN(math.MaxUint16)>>rng.IntN(16)),
		})
	}
	return n
}

// randomBytes returns n bytes that may stand in a name.
func randomBytes(rng *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		for b[i] == 0 || b[i] == '/' {
			b[i] = byte(rng.Uint32())
		}
	}
	return string(b)
}
