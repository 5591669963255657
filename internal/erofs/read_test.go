package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/erofs/erofstest"
)

// TestReader reads what the kernel reads in TestWrite.
func TestReader(t *testing.T) {
	for name, tree := range erofstest.Trees() {
		t.Run(name, func(t *testing.T) {
			r, err := erofs.NewReader(imageOf(t, tree))
			if err != nil {
				t.Fatal(err)
			}
			c := reading{t: t, r: r, tree: tree, nids: make(map[uint32]uint64)}
			c.inode("", 0, r.Root(), r.Root())
		})
	}
}

func imageOf(t testing.TB, tree erofs.Inodes) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := erofs.Write(&b, tree, erofs.Options{UUID: [16]byte{1}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// reading compares an image with the tree that it was made of.
type reading struct {
	t    *testing.T
	r    *erofs.Reader
	tree erofs.Inodes
	nids map[uint32]uint64 // of inodes that were seen: hard links have one
}

func (c *reading) inode(path string, i uint32, nid, parent uint64) {
	n := &c.tree[i]
	st, err := c.r.Stat(nid)
	if err != nil {
		c.t.Fatalf("%q: %v", path, err)
	}
	if had, ok := c.nids[i]; ok && had != nid {
		c.t.Errorf("%q: hard links have inodes %d and %d", path, had, nid)
	}
	c.nids[i] = nid
	got := fmt.Sprint(st.Mode, st.UID, st.GID, st.Mtime, st.MtimeNsec, st.Rdev)
	if want := fmt.Sprint(n.Mode, n.UID, n.GID, n.Mtime, n.MtimeNsec, n.Rdev); got != want {
		c.t.Errorf("%q: mode, uid, gid, mtime, device are %s, want %s", path, got, want)
	}
	var xattrs []erofs.Xattr
	for name, value := range c.r.Xattrs(&st) {
		xattrs = append(xattrs, erofs.Xattr{Name: name, Value: string(value)})
	}
	if !slices.Equal(xattrs, n.Xattrs) {
		c.t.Errorf("%q: there are %d xattrs that differ from the %d wanted", path, len(xattrs), len(n.Xattrs))
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		c.directory(path, n, &st, parent)
		return
	case unix.S_IFREG:
		if st.Size != n.Size {
			c.t.Errorf("%q: size %d, want %d", path, st.Size, n.Size)
		}
	case unix.S_IFLNK:
		if target, err := c.r.Target(&st); err != nil || string(target) != n.Target {
			c.t.Errorf("%q: target %.100q, %v, want %.100q", path, target, err, n.Target)
		}
	}
	if st.Nlink != n.Nlink {
		c.t.Errorf("%q: %d links, want %d", path, st.Nlink, n.Nlink)
	}
}

func (c *reading) directory(path string, n *erofs.Inode, st *erofs.Stat, parent uint64) {
	want := map[string]uint64{".": st.Nid, "..": parent}
	for _, e := range n.Entries {
		found, err := c.r.Lookup(st, e.Name)
		if err != nil || found.Type != c.tree[e.Inode].Mode&unix.S_IFMT {
			c.t.Fatalf("%q: lookup of %q: %+v, %v", path, e.Name, found, err)
		}
		want[e.Name] = found.Nid
		for _, absent := range []string{e.Name + "\x01", e.Name[:len(e.Name)-1] + "\x7f\x7f"} {
			if _, there := want[absent]; there {
				continue
			}
			if got, err := c.r.Lookup(st, absent); err == nil && string(got.Name) != absent {
				c.t.Fatalf("%q: lookup of %q found %q", path, absent, got.Name)
			} else if err != nil && !errors.Is(err, erofs.ErrAbsent) {
				c.t.Fatalf("%q: lookup of %q: %v", path, absent, err)
			}
		}
		c.inode(path+"/"+e.Name, e.Inode, found.Nid, st.Nid)
	}
	got := make(map[string]uint64)
	var at erofs.Position
	for again := true; again; { // one at a time, as a reader with a small buffer
		again = false
		for next, e := range c.r.Entries(st, at) {
			if _, twice := got[string(e.Name)]; twice {
				c.t.Fatalf("%q: %q is there twice", path, e.Name)
			}
			got[string(e.Name)], at, again = e.Nid, next, true
			break
		}
	}
	if !maps.Equal(got, want) {
		c.t.Errorf("%q: has %d entries, want %d", path, len(got), len(want))
	}
}

// walkImage reads everything of an image that is reached within a number of steps.
func walkImage(b []byte) error {
	r, err := erofs.NewReader(b)
	if err != nil {
		return err
	}
	todo := []uint64{r.Root()}
	for steps := 0; len(todo) > 0 && steps < 1000; steps++ {
		st, err := r.Stat(todo[0])
		todo = todo[1:]
		if err != nil {
			continue
		}
		for name, value := range r.Xattrs(&st) {
			steps += len(name) + len(value)
		}
		if _, err := r.Target(&st); err == nil {
			continue
		}
		for _, e := range r.Entries(&st, erofs.Position(steps%3)) {
			if _, err := r.Lookup(&st, string(e.Name)); err == nil {
				steps++
			}
			if todo = append(todo, e.Nid); len(todo) > 1000 {
				break
			}
		}
	}
	return nil
}

// FuzzReader: whatever an image holds, it is read or refused. The seeds are small trees; a
// seed's superblock stays as it is, since its checksum hides all that is behind it.
func FuzzReader(f *testing.F) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzReader/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	b := erofstest.NewBuilder()
	d := b.Add(0, "d", erofs.Inode{Mode: unix.S_IFDIR | 0o755})
	for i := range 300 {
		b.Add(d, fmt.Sprintf("name-%04d-of-a-file", i), erofs.Inode{Mode: unix.S_IFLNK | 0o777, Target: "target"})
	}
	b.Add(0, "x", erofs.Inode{Mode: unix.S_IFREG, Size: 1, Xattrs: []erofs.Xattr{{Name: "user.a", Value: "b"}}})
	image := imageOf(f, b.Tree())
	if err := walkImage(image); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		b := bytes.Clone(image)
		copy(b[4096+int(at)%(len(b)-4096):], change)
		if err := walkImage(b); err != nil && !errors.Is(err, erofs.ErrFormat) {
			t.Error(err)
		}
		if err := walkImage(change); err != nil && !errors.Is(err, erofs.ErrFormat) {
			t.Error(err)
		}
	})
}

func TestReaderRefuses(t *testing.T) {
	image := imageOf(t, erofstest.NewBuilder().Tree())
	for name, change := range map[string]func(b []byte) []byte{
		"empty":    func([]byte) []byte { return nil },
		"cut":      func(b []byte) []byte { return b[:4096] },
		"magic":    func(b []byte) []byte { b[1024]++; return b },
		"checksum": func(b []byte) []byte { b[1024+48]++; return b },
		"no root":  func(b []byte) []byte { b[4096+5] ^= 0x40; return b },
	} {
		if _, err := erofs.NewReader(change(bytes.Clone(image))); !errors.Is(err, erofs.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
