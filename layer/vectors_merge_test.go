package layer

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/layer/layertest"
)

// A mergeVector is a chain of layers, and what it shows.
type mergeVector struct {
	Name   string      `json:"name"`
	Group  bool        `json:"group,omitempty"` // other layers lie below
	Layers [][]tarPart `json:"layers"`          // bottom first
	Shows  []string    `json:"shows"`
}

func runMergeVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[mergeVector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			var layers []*Index
			for _, parts := range v.Layers {
				l, _ := convert(t, buildTar(t, parts))
				layers = append(layers, l.Index)
			}
			if got := treeLines(merge(t, !v.Group, layers...)); !slices.Equal(got, v.Shows) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(v.Shows, "\n"))
			}
		})
	}
}

// treeLines says of every name in a tree what the vectors say of it, in preorder.
func treeLines(tree *flatTree) []string {
	var lines []string
	eachName(tree, func(p, first string, n *Inode) {
		if first != "" {
			lines = append(lines, escaped(p)+" link "+escaped(first))
		} else {
			lines = append(lines, escaped(p)+" "+inodeLine(n))
		}
	})
	return lines
}

func inodeLine(n *Inode) string {
	if n.Whiteout {
		return "whiteout"
	}
	line := inodeKind(n)
	if n.UID != 0 {
		line += fmt.Sprintf(" uid %d", n.UID)
	}
	if n.GID != 0 {
		line += fmt.Sprintf(" gid %d", n.GID)
	}
	if n.Mtime != 0 || n.MtimeNsec != 0 {
		line += fmt.Sprintf(" mtime %d.%09d", n.Mtime, n.MtimeNsec)
	}
	if !n.Mode.IsDir() && n.Nlink != 1 {
		line += fmt.Sprintf(" links %d", n.Nlink)
	}
	for _, a := range n.Xattrs() {
		line += " " + escaped(a.Name) + "=" + escaped(a.Value)
	}
	return line + strings.ReplaceAll(marks(mark{n.Opaque, "!opaque"}, mark{n.Implied, "!implied"}), "!", " ")
}

func inodeKind(n *Inode) string {
	major, minor := n.Device()
	switch n.Mode.Type() {
	case os.ModeDir:
		return "dir " + octal(n.Mode)
	case os.ModeSymlink:
		return fmt.Sprintf("symlink %s %d %s", octal(n.Mode), n.Size, escaped(n.Target))
	case os.ModeNamedPipe:
		return "fifo " + octal(n.Mode)
	case os.ModeDevice:
		return fmt.Sprintf("block %s %d:%d", octal(n.Mode), major, minor)
	case os.ModeDevice | os.ModeCharDevice:
		return fmt.Sprintf("char %s %d:%d", octal(n.Mode), major, minor)
	}
	return fmt.Sprintf("file %s %d", octal(n.Mode), n.Size)
}

// mergeVectors are the cases of merge.json: what the examples of layer.md do not tell.
func mergeVectors() []mergeVector {
	return slices.Concat(shownInodes(), shownDirectories(), shownGroups())
}

// chain is the layers of a case, each the entries of its tar.
func chain(layers ...[]tarPart) [][]tarPart {
	for i := range layers {
		layers[i] = ended(layers[i])
	}
	return layers
}

func dirWith(name, mode string, gid int64, records ...string) []tarPart {
	d := bare(tarHeader{Name: name, Mode: mode, GID: gid, Type: "5"})
	if len(records) > 0 {
		return joined(pax(records...), d)
	}
	return d
}

// shownInodes are about what is no directory.
func shownInodes() []mergeVector {
	all := pax("SCHILY.xattr.user.a=1", "SCHILY.xattr.system.b=2", "SCHILY.xattr.security.c=3", "SCHILY.xattr.other=4")
	a := fileEntry("a", "1")
	return []mergeVector{
		{"links that are hidden count", false, chain(joined(a, linkEntry("b", "a"), linkEntry("c", "a"), linkEntry("d", "a")),
			joined(fileEntry(".wh.b", ""), fileEntry("c", "22"))), []string{"a file 0644 1 links 4", "c file 0644 2", "d link a"}},
		{"a device 0:0 hides, cut or linked", false, chain(joined(a, fileEntry("b", ""), fileEntry("c", "")),
			joined(deviceEntry("a", "3", 0, 0), deviceEntry("b", "3", 4096, 1<<20), linkEntry("c", "b"), deviceEntry("d", "3", 4096+5, 1<<20+1), deviceEntry("e", "4", 0, 0))),
			[]string{"d char 0644 5:1", "e block 0644 0:0"}},
		{"times that no kernel has", false, chain(joined(pax("mtime=-0.5"), a, pax("mtime=9223372036.854775807"), fileEntry("b", ""),
			pax("mtime=9223372036.854775808"), fileEntry("c", ""), pax("mtime=-1"), dirEntry("d/"))),
			[]string{"a file 0644 1", "b file 0644 0 mtime 9223372036.854775807", "c file 0644 0", "d dir 0755"}},
		{"a symlink", false, chain(bare(tarHeader{Name: "s", Mode: "600", UID: 3, Mtime: 4, Type: "2", Link: "/abc"})),
			[]string{"s symlink 0777 4 /abc uid 3 mtime 4.000000000"}},
		{"extended attributes that are shown", false, chain(joined(all, dirEntry("d/"), all, a, all, bare(tarHeader{Name: "p", Mode: "600", Type: "6"}), all, symEntry("s", "a"))),
			[]string{"a file 0644 1 security.c=3 system.b=2 user.a=1", "d dir 0755 security.c=3 system.b=2 user.a=1",
				"p fifo 0600 security.c=3 system.b=2", "s symlink 0777 1 a security.c=3 system.b=2"}},
		{"what a file hid stays hidden", false, chain(joined(dirEntry("d/"), fileEntry("d/a", "")), fileEntry("d", ""), joined(dirEntry("d/"), fileEntry("d/b", ""))),
			[]string{"d dir 0755", "d/b file 0644 0"}},
	}
}

// shownDirectories are about the metadata of directories.
func shownDirectories() []mergeVector {
	attribute := func(name string) string { return "SCHILY.xattr.user." + name }
	low := dirWith("d/", "755", 0, attribute("a=1"), attribute("b=1"), attribute("c=1"))
	x, y := fileEntry("d/x", ""), fileEntry("d/y", "")
	return []mergeVector{
		{"attributes that are kept twice", false, chain(low, joined(x, dirWith("d/", "700", 0, attribute("b=2"))), joined(y, dirWith("d/", "711", 0, attribute("c=3")))),
			[]string{"d dir 0711 user.a=1 user.b=2 user.c=3", "d/x file 0644 0", "d/y file 0644 0"}},
		{"attributes that are not kept", false, chain(low, dirWith("d/", "700", 0, attribute("b=2")), joined(y, dirWith("d/", "711", 0, attribute("c=3")))),
			[]string{"d dir 0711 user.b=2 user.c=3", "d/y file 0644 0"}},
		{"attributes that are kept above an implied directory", false, chain(low, x, joined(y, dirWith("d/", "711", 0, attribute("c=3")))),
			[]string{"d dir 0711 user.a=1 user.b=1 user.c=3", "d/x file 0644 0", "d/y file 0644 0"}},
		{"a whiteout ends the search", false, chain(joined(dirWith("a/", "711", 5), dirWith("a/b/", "700", 5)), fileEntry(".wh.a", ""), fileEntry("a/b/c", "")),
			[]string{"a dir 0755", "a/b dir 0755", "a/b/c file 0644 0"}},
		{"an opaque directory does not end it", false, chain(joined(dirWith("a/", "711", 5), dirWith("a/b/", "700", 5)),
			joined(dirWith("a/", "750", 6), fileEntry("a/.wh..wh..opq", "")), fileEntry("a/b/c", "")),
			[]string{"a dir 0750 gid 6", "a/b dir 0700 gid 5", "a/b/c file 0644 0"}},
		{"after a root", false, chain(joined(dirWith("./", "700", 5), symEntry("s", "/")), fileEntry("s/x", "")), []string{"s dir 0755", "s/x file 0644 0"}},
		{"after what a symlink names", false, chain(joined(dirWith("u/", "711", 5), dirWith("u/l/", "700", 6), symEntry("l", "u/l")),
			fileEntry("l/x", ""), fileEntry("l/y", "")), []string{"l dir 0700 gid 6", "l/x file 0644 0", "l/y file 0644 0", "u dir 0711 gid 5", "u/l dir 0700 gid 6"}},
		{"the group of a directory below", false, chain(joined(dirWith("d/", "2755", 5), dirWith("k/", "2755", 6), dirWith("n/", "755", 7)),
			joined(fileEntry("d/e/x", ""), fileEntry("k/e/x", ""), dirWith("k/", "700", 0), fileEntry("n/e/x", ""))),
			[]string{"d dir 2755 gid 5", "d/e dir 0755 gid 5", "d/e/x file 0644 0", "k dir 0700", "k/e dir 0755 gid 6", "k/e/x file 0644 0",
				"n dir 0755 gid 7", "n/e dir 0755", "n/e/x file 0644 0"}},
		{"the group of a directory of its own layer", false, chain(dirWith("d/", "2755", 5), joined(dirWith("d/", "2755", 6), fileEntry("d/e/x", ""))),
			[]string{"d dir 2755 gid 6", "d/e dir 0755 gid 6", "d/e/x file 0644 0"}},
	}
}

// shownGroups are about groups with other layers below them.
func shownGroups() []mergeVector {
	opaque := func(dir string) []tarPart { return joined(dirEntry(dir), fileEntry(dir+".wh..wh..opq", "")) }
	return []mergeVector{
		{"group: an opaque root", true, chain(joined(fileEntry(".wh..wh..opq", ""), fileEntry("a", ""), fileEntry(".wh.b", ""))),
			[]string{"a file 0644 0", "b whiteout"}},
		{"group: below an opaque directory", true, chain(joined(opaque("d/"), fileEntry("d/.wh.a", ""), fileEntry("d/e/f", ""), opaque("d/g/"))),
			[]string{"d dir 0755 opaque", "d/e dir 0755", "d/e/f file 0644 0", "d/g dir 0755"}},
		{"group: an opaque directory below the topmost", true, chain(opaque("d/"), dirEntry("d/")), []string{"d dir 0755 opaque"}},
		{"group: an implied directory with a group", true, chain(joined(dirWith("d/", "2755", 5), fileEntry("d/e/f", ""))),
			[]string{"d dir 2755 gid 5", "d/e dir 0755 gid 5 implied", "d/e/f file 0644 0"}},
		{"group: attributes that are kept", true, chain(joined(fileEntry("d/x", ""), dirEntry("d/"))), []string{"d dir 0755", "d/x file 0644 0"}},
		{"group: after a root", true, chain(symEntry("s", "/"), fileEntry("s/x", "")), []string{"s dir 0755 opaque", "s/x file 0644 0"}},
	}
}
