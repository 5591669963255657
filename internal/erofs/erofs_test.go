package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/erofs/erofstest"
)

func TestWrite(t *testing.T) {
	for name, tree := range erofstest.Trees() {
		t.Run(name, func(t *testing.T) { erofstest.Compare(t, mountTree(t, tree), tree) })
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	tree := erofstest.Random(rand.New(rand.NewPCG(7, 7)), 500)
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
	tree := erofstest.Random(rand.New(rand.NewPCG(3, 3)), 2000)
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
	b := erofstest.NewBuilder()
	dir := 0
	for i := range n {
		if i%20 == 0 {
			dir = b.Add(0, fmt.Sprintf("directory-%d", i), erofs.Inode{Mode: unix.S_IFDIR | 0o755})
		}
		b.Add(dir, fmt.Sprintf("some-file-%d.py", i), erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: uint64(i) + 1, Xattrs: []erofs.Xattr{
			{Name: "trusted.overlay.metacopy"}, {Name: "trusted.overlay.redirect", Value: "/xy/" + strings.Repeat("b", 59)}}})
	}
	return b.Tree()
}
