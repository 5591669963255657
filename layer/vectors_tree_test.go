package layer

import (
	"strings"
	"testing"
)

// The cases here are of spec/layer.md, "From a tar to an index" and "tar-split".

// treeCases are about names, what is replaced, symlinks and whiteouts.
func treeCases() []layerCase {
	return []layerCase{
		{"sorted by bytes", ended(fileEntry("b", ""), fileEntry("a-b", ""), dirEntry("a/"), fileEntry("a/x", "")),
			[]string{"a dir 0755", "a/x file 0644 0", "a-b file 0644 0", "b file 0644 0"}},
		{"the root", ended(bare(tarHeader{Name: "./", Mode: "700", UID: 9, Mtime: 5, Type: "5"}), fileEntry("./x", "")), []string{"x file 0644 0"}},
		{"the root twice", ended(pax("SCHILY.xattr.user.a=1"), dirEntry("/"), pax("SCHILY.xattr.user.b=2"), dirEntry("a/..")), nil},
		{"a file in place of the root", ended(fileEntry(".", "hello")), nil},
		{"names with dots", ended(fileEntry(".//a/./../b//c/.", "")), []string{"b implied", "b/c file 0644 0"}},
		{"the group of an implied directory", ended(bare(tarHeader{Name: "d/", Mode: "2755", GID: 5, Type: "5"}), fileEntry("d/e/f", "")),
			[]string{"d dir 2755", "d/e implied", "d/e/f file 0644 0"}},
		{"an implied directory, then its entry", ended(fileEntry("a/c", ""), dirEntry("a/")), []string{"a dir 0755 keep", "a/c file 0644 0"}},
		{"the same file twice", ended(fileEntry("a", "1"), fileEntry("a", "22")), []string{"a file 0644 2"}},
		{"several shadowed files", ended(fileEntry("d/a", "1"), fileEntry("d/b", "22"), fileEntry("d", "3"), fileEntry("e", "1"), symEntry("e", "d")),
			[]string{"d file 0644 1", "e symlink d"}},
		{"a file becomes a directory", ended(fileEntry("a", "1"), dirEntry("a/"), fileEntry("a/b", "")), []string{"a dir 0755", "a/b file 0644 0"}},
		{"a directory on a directory", ended(dirEntry("a/"), fileEntry("a/.wh..wh..opq", ""), fileEntry("a/b", ""), bare(tarHeader{Name: "a/", Mode: "700", Type: "5"})),
			[]string{"a dir 0700 opaque", "a/b file 0644 0"}},
		{"through a symlink", ended(dirEntry("usr/"), dirEntry("usr/lib/"), symEntry("lib", "usr/lib"), fileEntry("lib/x", "")),
			[]string{"lib symlink usr/lib", "usr dir 0755", "usr/lib dir 0755", "usr/lib/x file 0644 0"}},
		{"through a symlink out of the root", ended(symEntry("s", "../../../etc"), fileEntry("s/x", "")),
			[]string{"etc implied", "etc/x file 0644 0", "s symlink ../../../etc"}},
		{"through an absolute symlink", ended(symEntry("s", "/etc"), fileEntry("s/x", "")), []string{"etc implied", "etc/x file 0644 0", "s symlink /etc"}},
		{"through a chain of symlinks", ended(symEntry("a", "b"), symEntry("b", "c/d"), symEntry("c", "/e"), fileEntry("a/x", "")),
			[]string{"a symlink b", "b symlink c/d", "c symlink /e", "e implied", "e/d implied", "e/d/x file 0644 0"}},
		{"a directory replaces a symlink", ended(dirEntry("d/"), symEntry("s", "d"), dirEntry("s/"), fileEntry("s/x", "")),
			[]string{"d dir 0755", "s dir 0755", "s/x file 0644 0"}},
		{"whiteouts", ended(fileEntry("a/.wh.b", ""), fileEntry(".wh.c", "some bytes"), fileEntry(".wh..wh.x", ""), fileEntry(".wh.d/x", "")),
			[]string{".wh.d implied", ".wh.d/x file 0644 0", ".wh.x whiteout", "a implied", "a/b whiteout", "c whiteout"}},
		{"a whiteout is replaced", ended(fileEntry(".wh.b", ""), dirEntry("b/"), fileEntry("b/c", "")), []string{"b dir 0755", "b/c file 0644 0"}},
		{"an opaque directory that is implied", ended(fileEntry("a/.wh..wh..opq", "")), []string{"a implied opaque"}},
		{"an opaque root", ended(fileEntry(".wh..wh..opq", ""), fileEntry("a", "")), []string{"a file 0644 0"}},
		{"what a global header leaves", ended(fileEntry("a", "1"), global("path=a"), global("path=d/x")), []string{"d implied"}},
		{"a global header with an absolute name", ended(global("path=/../tmp/g"), fileEntry("tmp/a", "")), []string{"tmp implied", "tmp/a file 0644 0"}},
	}
}

// linkCases are about hard links.
func linkCases() []layerCase {
	return []layerCase{
		{"the first entry holds the inode", ended(fileEntry("b", "hello"), linkEntry("a", "b"), linkEntry("c", "a")),
			[]string{"a file 0644 5", "b link a", "c link a"}},
		{"a hard link has an absolute target", ended(fileEntry("a", ""), linkEntry("b", "/a")), []string{"a file 0644 0", "b link a"}},
		{"a hard link to a symlink", ended(fileEntry("f", ""), symEntry("s", "f"), linkEntry("t", "s")),
			[]string{"f file 0644 0", "s symlink f", "t link s"}},
		{"a hard link through a symlink", ended(dirEntry("d/"), fileEntry("d/f", "1"), symEntry("s", "d"), linkEntry("g", "s/f")),
			[]string{"d dir 0755", "d/f file 0644 1", "g link d/f", "s symlink d"}},
		{"a hard link to a name that ends in a slash", ended(fileEntry("f", ""), symEntry("s", "f"), linkEntry("b", "s/")),
			[]string{"b file 0644 0", "f link b", "s symlink f"}},
		{"a hard link to a device", ended(deviceEntry("c", "3", 5, 1), linkEntry("d", "c")), []string{"c char 5:1", "d link c"}},
		{"a hard link to a whiteout", ended(fileEntry(".wh.a", ""), linkEntry("b", "a")), []string{"a whiteout", "b whiteout"}},
		{"a hard link outlives the first name", ended(fileEntry("a", "1"), linkEntry("b", "a"), fileEntry("a", "2")),
			[]string{"a file 0644 1", "b file 0644 1"}},
		{"a hard link sets metadata", ended(bare(tarHeader{Name: "a", Mode: "4755", UID: 5, Type: "0"}),
			bare(tarHeader{Name: "b", Mode: "600", UID: 7, Mtime: 9, Type: "1", Link: "a"})), []string{"a file 0600 0", "b link a"}},
	}
}

// metaCases are about owners, modes, times, devices and extended attributes.
func metaCases() []layerCase {
	at := func(name string, mtime int64) []tarPart {
		return bare(tarHeader{Name: name, Mode: "755", Mtime: mtime, Type: "5"})
	}
	mode := func(name, mode, typ string) []tarPart { return bare(tarHeader{Name: name, Mode: mode, Type: typ}) }
	capability := "SCHILY.xattr.security.capability=\x01\x00\x00\x02" + strings.Repeat("\x00", 16)
	return []layerCase{
		{"devices and fifos", ended(deviceEntry("c", "3", 4096, 1), deviceEntry("b", "4", 8, 0), mode("p", "600", "6"), mode("z", "644", "3")),
			[]string{"b block 8:0", "c char 4096:1", "p fifo 0600", "z char 0:0"}},
		{"modes", ended(mode("a", "4755", "0"), mode("b", "2644", "0"), mode("c", "100644", "0"), mode("t/", "1777", "5")),
			[]string{"a file 4755 0", "b file 2644 0", "c file 0644 0", "t dir 1777"}},
		{"owners past 32 bits", ended(pax("uid=4294967303", "gid=4294967295"), fileEntry("a", ""), pax("uid=-1"), fileEntry("b", "")),
			[]string{"a file 0644 0", "b file 0644 0"}},
		{"an owner that stays", ended(bare(tarHeader{Name: "d/", Mode: "755", UID: 3, GID: 4, Type: "5"}), pax("uid=-1", "gid=-1"), dirEntry("d/")),
			[]string{"d dir 0755"}},
		{"capabilities of a file", ended(pax(capability, "SCHILY.xattr.user.a=1"), fileEntry("a", "1"), pax("SCHILY.xattr.user.b=2"), linkEntry("b", "a")),
			[]string{"a file 0644 1", "b link a"}},
		{"capabilities of a directory", ended(pax(capability), dirEntry("d/"), dirEntry("d/")), []string{"d dir 0755"}},
		{"attributes of a directory twice", ended(pax("SCHILY.xattr.user.a=1", "SCHILY.xattr.user.b=1"), dirEntry("d/"), pax("SCHILY.xattr.user.b=2"), dirEntry("d/")),
			[]string{"d dir 0755"}},
		{"times of directories at the end", ended(at("a/", 5), at("b/", 6), symEntry("a", "b"), at("c/", 7), fileEntry("c", "x")),
			[]string{"a symlink b", "b dir 0755", "c file 0644 1"}},
	}
}

// contentCases are about leaves, and the directory of shadowed files.
func contentCases(t *testing.T) []layerCase {
	h := tarHeader{Name: "a", Mode: "644", Type: "0"}
	name, entry := entryText(t)
	return []layerCase{
		{"a file of one leaf", ended(repeated(h, "x", 1<<20)), []string{"a file 0644 1048576"}},
		{"a file of two leaves", ended(repeated(h, "x", 1<<20+1)), []string{"a file 0644 1048577"}},
		{"a shadowed file of two leaves", ended(repeated(h, "x", 1<<20+1), fileEntry("a", "")), []string{"a file 0644 0"}},
		{"so many shadowed files that their directory is sharded", ended([]tarPart{{Repeat: &tarRepeat{entry, 6000}}}), []string{name + " file 0644 512"}},
	}
}

// entryText is an entry, header and content, without a byte that JSON would have to
// escape much: a name as long as its field, and of v7, which cares for nothing after it.
func entryText(t *testing.T) (name, entry string) {
	t.Helper()
	name = strings.Repeat("a", 100)
	h := tarHeader{Name: name, Mode: "644", Size: blockBytes, Type: "0", Magic: "none"}
	b, err := h.block()
	if err != nil {
		t.Fatal(err)
	}
	for i := 157; i < len(b); i++ {
		b[i] = '-'
	}
	fixChecksum(b)
	return name, string(b) + strings.Repeat("x", blockBytes)
}
