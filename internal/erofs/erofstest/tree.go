// Package erofstest has trees for tests of what writes, reads or serves EROFS images, and
// compares them with what is mounted.
package erofstest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

// A Builder makes trees for tests.
type Builder struct{ Inodes erofs.Inodes }

// NewBuilder returns one with a root directory.
func NewBuilder() *Builder {
	return &Builder{erofs.Inodes{{Mode: unix.S_IFDIR | 0o755, Mtime: 1}}}
}

// Add adds an inode to directory dir and returns its number.
func (b *Builder) Add(dir int, name string, n erofs.Inode) int {
	if n.Nlink == 0 {
		n.Nlink = 1
	}
	b.Inodes = append(b.Inodes, n)
	b.Link(dir, name, len(b.Inodes)-1)
	return len(b.Inodes) - 1
}

// Link adds a name of an inode.
func (b *Builder) Link(dir int, name string, inode int) {
	d := &b.Inodes[dir]
	d.Entries = append(d.Entries, erofs.Dirent{Name: name, Inode: uint32(inode)})
}

// Tree returns the tree, sorted.
func (b *Builder) Tree() erofs.Inodes {
	for i := range b.Inodes {
		e := b.Inodes[i].Entries
		sort.Slice(e, func(i, j int) bool { return e[i].Name < e[j].Name })
		x := b.Inodes[i].Xattrs
		sort.Slice(x, func(i, j int) bool { return x[i].Name < x[j].Name })
	}
	return b.Inodes
}

// Trees returns trees with all that an image may hold, by what is difficult in them.
func Trees() map[string]erofs.Inodes {
	trees := make(map[string]erofs.Inodes)
	for name, build := range shapes() {
		b := NewBuilder()
		build(b)
		trees[name] = b.Tree()
	}
	for name, build := range attributes() {
		b := NewBuilder()
		build(b)
		trees[name] = b.Tree()
	}
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		trees[fmt.Sprint("random ", seed)] = Random(rng, 1+rng.IntN(3000))
	}
	return trees
}

// Random makes a tree of about n inodes with all that an inode can be.
func Random(rng *rand.Rand, n int) erofs.Inodes {
	b := NewBuilder()
	dirs, files := []int{0}, []int{}
	depth := map[int]int{}
	for i := range n {
		dir := dirs[rng.IntN(len(dirs))]
		name := fmt.Sprintf("%s%x", randomBytes(rng, rng.IntN(1+rng.IntN(240))), i)
		if len(files) > 0 && rng.IntN(20) == 0 {
			f := files[rng.IntN(len(files))]
			b.Inodes[f].Nlink++
			b.Link(dir, name, f)
			continue
		}
		node := randomInode(rng)
		if node.Mode&unix.S_IFMT == unix.S_IFDIR && depth[dir] >= 8 {
			node.Mode = unix.S_IFREG | 0o644
		}
		k := b.Add(dir, name, node)
		if node.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, k)
			depth[k] = depth[dir] + 1
		} else {
			files = append(files, k)
		}
	}
	return b.Tree()
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
