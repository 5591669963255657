package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

func reg(size uint64) erofs.Inode { return erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: size} }

// shapes are trees with one thing each that is easy to get wrong in the layout.
func shapes() map[string]func(b *builder) {
	return map[string]func(b *builder){
		"empty": func(b *builder) {},
		"sizes": func(b *builder) {
			for _, size := range []uint64{0, 1, 4095, 4096, 4097, 1 << 20, 1<<32 - 1, 1 << 32, 1 << 43, 1<<43 + 1, erofs.MaxFileSize} {
				b.add(0, fmt.Sprint(size), reg(size))
			}
		},
		"large directory": func(b *builder) {
			d := b.add(0, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o1777})
			for i := range 35000 {
				b.add(d, fmt.Sprintf("name-%d", i), reg(uint64(i)))
			}
		},
		"names": func(b *builder) {
			for _, name := range []string{"!before the dots", "-", ".hidden", "..x", ".\x01", "\x01", "new\nline", `back\slash`, "\xff\xfe", " ", "ü", strings.Repeat("n", 255), strings.Repeat("\xff", 255)} {
				b.add(0, name, reg(1))
			}
			for i := range 500 { // full names, so that blocks end in each way
				b.add(0, fmt.Sprintf("%0*d", 255-i%16, i), reg(0))
			}
		},
		"symlinks": func(b *builder) {
			for _, size := range []int{1, 59, 60, 100, 2047, 2048, 2049, 3967, 3968, 4032, 4064, 4094, 4095} {
				b.add(0, fmt.Sprint(size), erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: strings.Repeat("x", size)})
				b.add(0, fmt.Sprint(size, "x"), erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: strings.Repeat("y", size),
					Xattrs: []erofs.Xattr{{Name: "trusted.a", Value: strings.Repeat("v", size*7%5000)}}})
			}
		},
	}
}

// attributes are trees with inodes of every kind.
func attributes() map[string]func(b *builder) {
	return map[string]func(b *builder){
		"xattrs": func(b *builder) {
			for i, size := range []int{0, 1, 2, 3, 4, 255, 4000, 4096, 10000, 65534, 65535} {
				value := strings.Repeat("\x00\xff", size/2+1)[:size]
				b.add(0, fmt.Sprint(i), erofs.Inode{Mode: unix.S_IFREG | 0o600, Size: 1 << 40, Xattrs: []erofs.Xattr{
					{Name: "security.capability", Value: "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
					{Name: "trusted." + strings.Repeat("t", 247), Value: value},
					{Name: "user.empty"}, {Name: "user.value", Value: value},
				}})
				b.add(0, fmt.Sprint("d", i), erofs.Inode{Mode: unix.S_IFDIR | 0o700, Xattrs: []erofs.Xattr{{Name: "trusted.overlay.opaque", Value: "y"}, {Name: "user.value", Value: value}}})
			}
			acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
			b.add(0, "acl", erofs.Inode{Mode: unix.S_IFDIR | 0o644, Xattrs: []erofs.Xattr{{Name: "system.posix_acl_access", Value: acl}, {Name: "system.posix_acl_default", Value: acl}}})
		},
		"times and owners": func(b *builder) {
			for _, at := range []int64{-1 << 40, -1, 0, 1, 1<<31 - 1, 1 << 31, 1 << 32, 1<<33 + 7} {
				n := reg(3)
				n.Mtime, n.MtimeNsec, n.UID, n.GID = at, 999999999, 1<<32-2, 1<<32-3
				b.add(0, fmt.Sprint(at), n)
			}
		},
		"devices": func(b *builder) {
			for i, mode := range []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK} {
				b.add(0, fmt.Sprint("n", i), erofs.Inode{Mode: mode | 0o7666})
				b.add(0, fmt.Sprint("m", i), erofs.Inode{Mode: mode, Rdev: 0xabc00fff & uint32(-(i-2)>>1<<1)})
			}
			b.add(0, "whiteout", erofs.Inode{Mode: unix.S_IFCHR})
			b.add(0, "large", erofs.Inode{Mode: unix.S_IFBLK, Rdev: 0xfffabcde})
		},
		"hard links": func(b *builder) {
			d := b.add(0, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o755})
			f := b.add(d, "a", erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: 5, Nlink: 3})
			b.link(d, "b", f)
			b.link(0, "c", f)
			l := b.add(0, "l", erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: "x", Nlink: 2})
			b.link(0, "m", l)
		},
		"deep": func(b *builder) {
			d := 0
			for range 500 { // fsck.erofs 1.5 crashes at 1,500
				d = b.add(d, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o755})
			}
			b.add(d, "f", reg(9))
		},
	}
}

func TestWrite(t *testing.T) {
	trees := shapes()
	maps.Copy(trees, attributes())
	for name, build := range trees {
		t.Run(name, func(t *testing.T) {
			b := newBuilder()
			build(b)
			tree := b.tree()
			compare(t, mountTree(t, tree), tree)
		})
	}
}

func TestWriteRandom(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			tree := randomTree(rng, 1+rng.IntN(3000))
			compare(t, mountTree(t, tree), tree)
		})
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	tree := randomTree(rand.New(rand.NewPCG(7, 7)), 500)
	var a, b bytes.Buffer
	for _, w := range []io.Writer{&a, &b} {
		if err := erofs.Write(w, tree, erofs.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same tree gave two images")
	}
}

func TestWriteRefuses(t *testing.T) {
	root := erofs.Inode{Mode: unix.S_IFDIR}
	file := erofs.Inode{Mode: unix.S_IFREG, Nlink: 1}
	with := func(entries ...erofs.Dirent) erofs.Inode { return erofs.Inode{Mode: unix.S_IFDIR, Entries: entries} }
	xattrs := func(x ...erofs.Xattr) erofs.Inode { return erofs.Inode{Mode: unix.S_IFDIR, Xattrs: x} }
	long := strings.Repeat("v", 65535)
	for name, c := range map[string]struct {
		tree erofs.Inodes
		want error
	}{
		"nothing":              {nil, erofs.ErrTree},
		"root is a file":       {erofs.Inodes{file}, erofs.ErrTree},
		"no name":              {erofs.Inodes{root, file}, erofs.ErrTree},
		"unsorted":             {erofs.Inodes{with(erofs.Dirent{Name: "b", Inode: 1}, erofs.Dirent{Name: "a", Inode: 1}), file}, erofs.ErrTree},
		"name twice":           {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}, erofs.Dirent{Name: "a", Inode: 1}), file}, erofs.ErrTree},
		"slash":                {erofs.Inodes{with(erofs.Dirent{Name: "a/b", Inode: 1}), file}, erofs.ErrTree},
		"dots":                 {erofs.Inodes{with(erofs.Dirent{Name: "..", Inode: 1}), file}, erofs.ErrTree},
		"long name":            {erofs.Inodes{with(erofs.Dirent{Name: strings.Repeat("n", 256), Inode: 1}), file}, erofs.ErrTree},
		"no such inode":        {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 2}), file}, erofs.ErrTree},
		"root below itself":    {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 0})}, erofs.ErrTree},
		"directory twice":      {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}, erofs.Dirent{Name: "b", Inode: 1}), root}, erofs.ErrTree},
		"entries in a file":    {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}), {Mode: unix.S_IFREG, Entries: []erofs.Dirent{{Name: "x"}}}}, erofs.ErrTree},
		"no type":              {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}), {Mode: 0o644}}, erofs.ErrTree},
		"empty target":         {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}), {Mode: unix.S_IFLNK}}, erofs.ErrTree},
		"long target":          {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}), {Mode: unix.S_IFLNK, Target: strings.Repeat("t", 4096)}}, erofs.ErrTree},
		"nanoseconds":          {erofs.Inodes{{Mode: unix.S_IFDIR, MtimeNsec: 1e9}}, erofs.ErrTree},
		"huge file":            {erofs.Inodes{with(erofs.Dirent{Name: "a", Inode: 1}), {Mode: unix.S_IFREG, Size: erofs.MaxFileSize + 1}}, erofs.ErrTooLarge},
		"xattr namespace":      {erofs.Inodes{xattrs(erofs.Xattr{Name: "system.nfs4_acl"})}, erofs.ErrXattr},
		"xattr without a name": {erofs.Inodes{xattrs(erofs.Xattr{Name: "user."})}, erofs.ErrXattr},
		"xattr too long":       {erofs.Inodes{xattrs(erofs.Xattr{Name: "user.a", Value: long + "v"})}, erofs.ErrXattr},
		"xattrs too long": {erofs.Inodes{xattrs(erofs.Xattr{Name: "user.a", Value: long}, erofs.Xattr{Name: "user.b", Value: long},
			erofs.Xattr{Name: "user.c", Value: long}, erofs.Xattr{Name: "user.d", Value: long})}, erofs.ErrXattr},
		"xattrs unsorted": {erofs.Inodes{xattrs(erofs.Xattr{Name: "user.b"}, erofs.Xattr{Name: "user.a"})}, erofs.ErrXattr},
	} {
		t.Run(name, func(t *testing.T) {
			if err := erofs.Write(io.Discard, c.tree, erofs.Options{}); !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
}

// failing is a full disk.
type failing struct{ room int }

func (f *failing) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, unix.ENOSPC
	}
	return len(b), nil
}

func TestWriteFullDisk(t *testing.T) {
	tree := randomTree(rand.New(rand.NewPCG(3, 3)), 2000)
	if err := erofs.Write(&failing{room: 300 << 10}, tree, erofs.Options{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v, want ENOSPC", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{60_000, 500_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t := manyFiles(n)
			b.ReportAllocs()
			for b.Loop() {
				var size counter
				if err := erofs.Write(&size, t, erofs.Options{}); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(size)/1e6, "MB")
			}
		})
	}
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// manyFiles makes a tree as a snapshotter does: 20 files a directory, each with the two
// extended attributes of an overlay.
func manyFiles(n int) erofs.Inodes {
	b := newBuilder()
	dir := 0
	for i := range n {
		if i%20 == 0 {
			dir = b.add(0, fmt.Sprintf("directory-%d", i), erofs.Inode{Mode: unix.S_IFDIR | 0o755})
		}
		b.add(dir, fmt.Sprintf("some-file-%d.py", i), erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: uint64(i) + 1, Xattrs: []erofs.Xattr{
			{Name: "trusted.overlay.metacopy"}, {Name: "trusted.overlay.redirect", Value: "/xy/" + strings.Repeat("b", 59)}}})
	}
	return b.tree()
}
