//go:build linux

package unpack_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab/tree"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

const (
	capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	// u::rwx,u:12345:r-x,g::r-x,m::r-x,o::r-x
	defaultACL = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\x39\x30\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"
)

// A chain is layers, bottom first, that containerd can apply.
type chain struct {
	layers [][]file
	// overlayOnly: on a plain directory containerd does something else, or fails. An index
	// says what the layer is on overlayfs.
	overlayOnly bool
	anyTimes    bool // of directories: the chain changes some through symbolic links
}

func chains() map[string]chain {
	caps := map[string]string{"security.capability": capability, "user.a": "1"}
	d := func(name string, mode int64, uid, gid int, xattrs map[string]string) file {
		return file{Name: name, Type: tar.TypeDir, Mode: mode, UID: uid, GID: gid, Sec: 5e8, Xattrs: xattrs}
	}
	node := func(name string, typ byte, major, minor int64) file {
		return file{Name: name, Type: typ, Mode: 0o640, UID: 1, GID: 6, Major: major, Minor: minor, Sec: 77}
	}
	return map[string]chain{
		"whiteouts": {layers: [][]file{{dir("d"), text("d/a", "1"), text("d/b", "2"), text("e", "3"), dir("f"), text("f/g/h", "")},
			{dir("d"), text("d/.wh.a", ""), text(".wh.e", ""), text(".wh.f", ""), text(".wh.none", "")}, {text("e", "4")}}},
		"opaque": {layers: [][]file{{dir("d"), text("d/a", "1"), dir("d/s"), text("d/s/x", "")},
			{dir("d"), text("d/.wh..wh..opq", ""), text("d/b", "2")}, {dir("d"), text("d/c", "")}}},
		"opaque root":       {layers: [][]file{{text("a", "1"), dir("b")}, {text(".wh..wh..opq", ""), text("c", "2")}}},
		"replaced":          {layers: [][]file{{dir("d"), text("d/a", ""), text("f", ""), sym("s", "d")}, {text("d", "file"), dir("f"), dir("s"), text("s/x", "1")}, {dir("d"), text("d/b", "")}}},
		"whiteout then dir": {layers: [][]file{{dir("d"), text("d/a", "")}, {text(".wh.d", ""), dir("d"), text("d/b", "")}}, overlayOnly: true},
		"implied": {layers: [][]file{{d("d", 0o1750, 3, 4, map[string]string{"user.x": "y"}), text("d/a", "")},
			{text("d/b", "")}, {text("d/c/e", "")}, {text("new/d/c", "")}}},
		"implied then own": {layers: [][]file{{d("d", 0o750, 8, 9, map[string]string{"user.x": "y", "user.z": "1"})},
			{text("d/b", ""), d("d", 0o700, 1, 2, map[string]string{"user.z": "2"})}, {text("d/c", "")}}},
		"implied on symlink": {layers: [][]file{{dir("usr"), d("usr/lib", 0o711, 9, 9, nil), sym("lib", "usr/lib"), sym("abs", "/usr/../usr/lib"), text("lib/a", "")},
			{text("lib/b", "2"), text("abs/c", "3"), text("lib/.wh.a", ""), hard("abs/d", "abs/c")}}, anyTimes: true},
		"implied on opaque": {layers: [][]file{{dir("a"), d("a/b", 0o711, 1, 1, nil)}, {dir("a"), text("a/.wh..wh..opq", "")}, {text("a/b/c", "")}}, overlayOnly: true},
		"implied on file":   {layers: [][]file{{d("a", 0o711, 1, 1, nil)}, {text("a", "")}, {text("a/c", "")}}, overlayOnly: true},
		"setgid": {layers: [][]file{{d("g", 0o2775, 3, 50, nil), text("g/i/j/k", ""), d("g/own", 0o755, 0, 0, nil)},
			{text("g/new/f", ""), text("h/f", ""), d("h", 0o2755, 0, 7, nil), text("h/i/f", "")}}},
		"hard links": {layers: [][]file{{text("a", "1"), hard("b", "a"), dir("z"), hard("z/c", "a")}, {text(".wh.b", "")}, {text("b", "2"), hard("a", "b")}}},
		"links set metadata": {layers: [][]file{{{Name: "a", Body: "1", Mode: 0o4755, UID: 5, Xattrs: caps},
			{Name: "b", Type: tar.TypeLink, Link: "a", Mode: 0o600, UID: 7, Sec: 9}, {Name: "c", Type: tar.TypeLink, Link: "b", Mode: 0o4644, Xattrs: map[string]string{"user.b": "2"}}}}},
		"capabilities": {layers: [][]file{{{Name: "a", Body: "1", Mode: 0o4755, UID: 5, Xattrs: caps}, {Name: "b", Type: tar.TypeDir, Mode: 0o755}, {Name: "c", Body: strings.Repeat("x", ipfs.LeafSize+1), Mode: 0o2755, GID: 3, Xattrs: caps}}}},
		"attributes": {layers: [][]file{{{Name: "a", Xattrs: map[string]string{"user.a": "1", "trusted.b": "2", "nonsense": "3", "com.apple.x": "4", "user.empty": "", "user.binary": "\xff\x00="}},
			{Name: "s", Type: tar.TypeSymlink, Link: "a", Xattrs: map[string]string{"user.a": "1"}}, {Name: "p", Type: tar.TypeFifo, Xattrs: map[string]string{"user.a": "1"}},
			d("acl", 0o755, 0, 0, map[string]string{"system.posix_acl_default": defaultACL})}}},
		"devices": {layers: [][]file{{text("a", "1"), text("b", "")}, {node("a", tar.TypeChar, 0, 0), hard("b", "a"), node("n", tar.TypeChar, 1, 3)},
			{node("l", tar.TypeBlock, 7, 1), node("m", tar.TypeChar, 240, 70_000), node("o", tar.TypeBlock, 4097, 1<<20+3), node("p", tar.TypeFifo, 0, 0), hard("q", "p")}}},
		"times": {layers: [][]file{{{Name: "a", Sec: -5}, {Name: "b", Sec: 1 << 33}, {Name: "c", Sec: 1 << 34},
			{Name: "d", Type: tar.TypeDir, Mode: 0o700, Sec: 77}, {Name: "d/x", Sec: 5}, {Name: "d/e", Type: tar.TypeDir, Mode: 0o700, Sec: 78}, {Name: "s", Type: tar.TypeSymlink, Link: "x", Sec: 12}}}},
		"huge owner":     {layers: [][]file{{{Name: "a", UID: 1<<32 - 2, GID: 1 << 31}, {Name: "b", UID: -1, GID: 5}}}},
		"long names":     {layers: [][]file{{text(strings.Repeat("n", 255), "x"), text(strings.Repeat(strings.Repeat("d", 60)+"/", 50)+"f", "deep")}, {text(".wh."+strings.Repeat("m", 250), "")}}},
		"odd names":      {layers: [][]file{{text("new\nline", "1"), text("bad\xff\xfe", "2"), text("a:b,c", "3"), text("...", "4"), text("-rf", "5"), text("dot.", "6"), sym("loop", "loop"), sym("up", "../..")}, {text(".wh.dot.", ""), dir("new\nline")}}},
		"linked symlink": {layers: [][]file{{sym("s", "f"), hard("t", "s"), text("f", "")}}},
		"replaced again": {layers: [][]file{{text("a", "1"), text("a", "2"), dir("b"), text("b/c", ""), text("b", "3"), text("d", ""), dir("d"), text("d/e", "5"), text("l", "6"), hard("m", "l"), text("l", "7")}}},
		"root entries":   {layers: [][]file{{{Name: "./", Type: tar.TypeDir, Mode: 0o700, UID: 9}, text("x", "")}, {text("./y", "")}}},
		"sizes":          {layers: [][]file{sizes()}},
	}
}

// sizes are files around the limits of leaves and batches, some of them equal.
func sizes() []file {
	random := rand.New(rand.NewSource(1))
	var files []file
	for _, n := range []int{0, 1, 4096, ipfs.LeafSize - 1, ipfs.LeafSize, ipfs.LeafSize + 1, 3*ipfs.LeafSize + 5, 20 * ipfs.LeafSize} {
		body := make([]byte, n)
		random.Read(body)
		files = append(files, text(fmt.Sprintf("size-%d", n), string(body)), text(fmt.Sprintf("same-%d", n), string(body)))
	}
	files = append(files, text("zeros", strings.Repeat("\x00", 18*ipfs.LeafSize)))
	for i := range 700 {
		files = append(files, text(fmt.Sprintf("small/%d/%d", i%7, i), fmt.Sprint("content ", i/2)))
	}
	return files
}

// TestOverlay applies layers to upper directories, and finds in each what containerd has in
// its own.
func TestOverlay(t *testing.T) {
	for name, c := range chains() {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			var theirs, ours []string // uppermost first
			for i, files := range c.layers {
				tarball := layertest.Tar(t, files...)
				want, got := l.folder(fmt.Sprint("theirs-", i)), l.folder(fmt.Sprint("ours-", i))
				_, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball),
					archive.WithConvertWhiteout(archive.OverlayConvertWhiteout), archive.WithParents(theirs))
				l.must(err)
				desc := l.convert(tarball)
				if applied := l.apply(desc, l.overlay(got, ours...)); applied.Digest != desc.Digest {
					t.Errorf("the digest is %s, want that of the layer, %s", applied.Digest, desc.Digest)
				}
				l.same(i, want, got, l.implied(desc.Digest))
				theirs, ours = append([]string{want}, theirs...), append([]string{got}, ours...)
			}
		})
	}
}

// implied says of which directories of a layer nobody states the time: they have that at
// which they were made.
func (l *lab) implied(dgst digest.Digest) func(path string) bool {
	paths := map[string]bool{".": true}
	x := l.open(dgst).Index
	for i := range x.Entries {
		if x.Entries[i].Implied {
			paths[x.Path(i)] = true
		}
	}
	return func(path string) bool { return paths[path] }
}

// TestPlain applies layers to one directory after the other, as the native snapshotter does.
func TestPlain(t *testing.T) {
	for name, c := range chains() {
		if c.overlayOnly {
			continue
		}
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			want, got := l.folder("theirs"), l.folder("ours")
			touched := tree.Touched{}
			// Nobody sets the root's.
			anyMtime := func(path string) bool { return path == "." || touched.Has(path) }
			if c.anyTimes {
				anyMtime = func(string) bool { return true }
			}
			for i, files := range c.layers {
				tarball := layertest.Tar(t, files...)
				_, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball))
				l.must(err)
				l.apply(l.convert(tarball), bind(got))
				l.must(touched.Layer(bytes.NewReader(tarball)))
				l.same(i, want, got, anyMtime)
			}
		})
	}
}

// same compares two directories. Of a whiteout nothing is seen but that it is one.
func (l *lab) same(i int, want, got string, anyMtime func(string) bool) {
	l.t.Helper()
	read := func(dir string) []tree.Entry {
		entries, err := tree.Read(dir)
		l.must(err)
		for i := range entries {
			if e := &entries[i]; e.Mode&unix.S_IFMT == unix.S_IFCHR && e.Rdev == 0 {
				*e = tree.Entry{Path: e.Path, Mode: unix.S_IFCHR}
			}
		}
		return entries
	}
	if diff := tree.Diff(read(want), read(got), anyMtime); len(diff) > 0 {
		l.t.Errorf("layer %d: containerd (want) and ipcs (have) differ:\n%s", i, strings.Join(diff, "\n"))
	}
}

// TestMixedStack applies a layer to the mounts of our own snapshotter, which have data-only
// layers, and a remount behind them.
func TestMixedStack(t *testing.T) {
	l := newLab(t)
	below, data, upper := l.folder("below"), l.folder("data"), l.folder("upper")
	l.apply(l.convert(layertest.Tar(t, file{Name: "d", Type: tar.TypeDir, Mode: 0o711, UID: 4, GID: 5})), bind(below))
	mounts := l.overlay(upper, below)
	for i, o := range mounts[0].Options {
		if strings.HasPrefix(o, "lowerdir=") {
			mounts[0].Options[i] = o + "::" + data
		}
	}
	mounts = append(mounts, mount.Mount{Type: "none", Source: "none", Options: []string{"remount"}})
	l.apply(l.convert(layertest.Tar(t, text("d/f", "x"), text(".wh.gone", ""))), mounts)
	var st unix.Stat_t
	l.must(unix.Lstat(filepath.Join(upper, "d"), &st))
	if st.Mode&0o7777 != 0o711 || st.Uid != 4 || st.Gid != 5 {
		t.Errorf("implied directory has mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
	}
	l.must(unix.Lstat(filepath.Join(upper, "gone"), &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("no whiteout: mode %o, device %d", st.Mode, st.Rdev)
	}
}

// TestDeepPath goes down further than directories are held open, and up again.
func TestDeepPath(t *testing.T) {
	l := newLab(t)
	const depth = 600
	path, files := "", []file(nil)
	for i := range depth {
		path += "d/"
		files = append(files, file{Name: path, Type: tar.TypeDir, Mode: 0o750, Sec: int64(1000 + i)}, text(path+"z", fmt.Sprint(i)))
	}
	want, got := l.folder("theirs"), l.folder("ours")
	tarball := layertest.Tar(t, files...)
	_, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball))
	l.must(err)
	l.apply(l.convert(tarball), bind(got))
	l.same(0, want, got, func(p string) bool { return p == "." })
}

// TestRandom applies random chains, in which names run into each other.
func TestRandom(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 10
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLab(t)
			random := rand.New(rand.NewSource(int64(seed)))
			var theirs, ours []string
			for i := range 4 {
				tarball := layertest.Tar(t, randomFiles(random)...)
				want, got := l.folder(fmt.Sprint("theirs-", i)), l.folder(fmt.Sprint("ours-", i))
				if _, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball),
					archive.WithConvertWhiteout(archive.OverlayConvertWhiteout), archive.WithParents(theirs)); err != nil {
					continue // there is no such layer
				}
				desc := l.convert(tarball)
				l.apply(desc, l.overlay(got, ours...))
				l.same(i, want, got, l.implied(desc.Digest))
				theirs, ours = append([]string{want}, theirs...), append([]string{got}, ours...)
			}
		})
	}
}

// randomFiles returns entries over few names, parents before children or after them. None
// has the setgid bit: an index does not say whether a directory in it was made before or
// after that changed.
func randomFiles(random *rand.Rand) []file {
	var files []file
	for range 1 + random.Intn(12) {
		var names []string
		for range 1 + random.Intn(3) {
			names = append(names, string(rune('a'+random.Intn(3))))
		}
		f := file{Name: strings.Join(names, "/"), Mode: int64(1+random.Intn(0o7777)) &^ 0o2000, UID: random.Intn(3), GID: random.Intn(3), Sec: int64(random.Intn(1 << 20))}
		switch random.Intn(6) {
		case 0, 1:
			f.Type = tar.TypeDir
		case 2:
			f.Name = strings.Join(append(slices.Clone(names[:len(names)-1]), ".wh."+names[len(names)-1]), "/")
		case 3:
			f.Type, f.Link = tar.TypeSymlink, "x"
		default:
			f.Body = strings.Repeat("x", random.Intn(3))
		}
		files = append(files, f)
	}
	return files
}
