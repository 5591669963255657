package erofstest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

// Reg is a regular file of a size.
func Reg(size uint64) erofs.Inode { return erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: size} }

// shapes are trees with one thing each that is easy to get wrong in the layout.
func shapes() map[string]func(b *Builder) {
	return map[string]func(b *Builder){
		"empty": func(b *Builder) {},
		"sizes": func(b *Builder) {
			for _, size := range []uint64{0, 1, 4095, 4096, 4097, 1 << 20, 1<<32 - 1, 1 << 32, 1 << 43, 1<<43 + 1, erofs.MaxFileSize} {
				b.Add(0, fmt.Sprint(size), Reg(size))
			}
		},
		"large directory": func(b *Builder) {
			d := b.Add(0, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o1777})
			for i := range 35000 {
				b.Add(d, fmt.Sprintf("name-%d", i), Reg(uint64(i)))
			}
		},
		"names": func(b *Builder) {
			for _, name := range []string{"!before the dots", "-", ".hidden", "..x", ".\x01", "\x01", "new\nline", `back\slash`, "\xff\xfe", " ", "ü", strings.Repeat("n", 255), strings.Repeat("\xff", 255)} {
				b.Add(0, name, Reg(1))
			}
			for i := range 500 { // full names, so that blocks end in each way
				b.Add(0, fmt.Sprintf("%0*d", 255-i%16, i), Reg(0))
			}
		},
		"symlinks": func(b *Builder) {
			for _, size := range []int{1, 59, 60, 100, 2047, 2048, 2049, 3967, 3968, 4032, 4064, 4094, 4095} {
				b.Add(0, fmt.Sprint(size), erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: strings.Repeat("x", size)})
				b.Add(0, fmt.Sprint(size, "x"), erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: strings.Repeat("y", size),
					Xattrs: []erofs.Xattr{{Name: "trusted.a", Value: strings.Repeat("v", size*7%5000)}}})
			}
		},
	}
}

// attributes are trees with inodes of every kind.
func attributes() map[string]func(b *Builder) {
	return map[string]func(b *Builder){
		"xattrs": func(b *Builder) {
			for i, size := range []int{0, 1, 2, 3, 4, 255, 4000, 4096, 10000, 65534, 65535} {
				value := strings.Repeat("\x00\xff", size/2+1)[:size]
				b.Add(0, fmt.Sprint(i), erofs.Inode{Mode: unix.S_IFREG | 0o600, Size: 1 << 40, Xattrs: []erofs.Xattr{
					{Name: "security.capability", Value: "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
					{Name: "trusted." + strings.Repeat("t", 247), Value: value},
					{Name: "user.empty"}, {Name: "user.value", Value: value},
				}})
				b.Add(0, fmt.Sprint("d", i), erofs.Inode{Mode: unix.S_IFDIR | 0o700, Xattrs: []erofs.Xattr{{Name: "trusted.overlay.opaque", Value: "y"}, {Name: "user.value", Value: value}}})
			}
			acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
			b.Add(0, "acl", erofs.Inode{Mode: unix.S_IFDIR | 0o644, Xattrs: []erofs.Xattr{{Name: "system.posix_acl_access", Value: acl}, {Name: "system.posix_acl_default", Value: acl}}})
		},
		"times and owners": func(b *Builder) {
			for _, at := range []int64{-1 << 40, -1, 0, 1, 1<<31 - 1, 1 << 31, 1 << 32, 1<<33 + 7} {
				n := Reg(3)
				n.Mtime, n.MtimeNsec, n.UID, n.GID = at, 999999999, 1<<32-2, 1<<32-3
				b.Add(0, fmt.Sprint(at), n)
			}
		},
		"devices": func(b *Builder) {
			for i, mode := range []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK} {
				b.Add(0, fmt.Sprint("n", i), erofs.Inode{Mode: mode | 0o7666})
				b.Add(0, fmt.Sprint("m", i), erofs.Inode{Mode: mode, Rdev: 0xabc00fff & uint32(-(i-2)>>1<<1)})
			}
			b.Add(0, "whiteout", erofs.Inode{Mode: unix.S_IFCHR})
			b.Add(0, "large", erofs.Inode{Mode: unix.S_IFBLK, Rdev: 0xfffabcde})
		},
		"hard links": func(b *Builder) {
			d := b.Add(0, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o755})
			f := b.Add(d, "a", erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: 5, Nlink: 3})
			b.Link(d, "b", f)
			b.Link(0, "c", f)
			l := b.Add(0, "l", erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: "x", Nlink: 2})
			b.Link(0, "m", l)
		},
		"deep": func(b *Builder) {
			d := 0
			for range 500 { // fsck.erofs 1.5 crashes at 1,500
				d = b.Add(d, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o755})
			}
			b.Add(d, "f", Reg(9))
		},
	}
}
