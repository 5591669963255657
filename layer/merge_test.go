package layer

import (
	"archive/tar"
	"fmt"
	"os"
	"strings"
	"testing"
)

// show writes a tree as one line a path: what tests compare.
func show(tree *flatTree) string {
	var b strings.Builder
	eachName(tree, func(p, _ string, n *Inode) {
		fmt.Fprintf(&b, "%s %v%s\n", p, n.Mode, marks(mark{n.Whiteout, " whiteout"}, mark{n.Opaque, " opaque"}, mark{n.Implied, " implied"}))
	})
	return b.String()
}

// TestMergeAbove says what a group of layers keeps for those that lie below it.
func TestMergeAbove(t *testing.T) {
	for name, tc := range map[string]struct {
		layers      [][]file
		top, bottom string // without and with a bottom
	}{
		"whiteout": {[][]file{{text("a", "")}, {text(".wh.a", ""), text(".wh.b", "")}},
			"a Dc--------- whiteout\nb Dc--------- whiteout\n", ""},
		"opaque": {[][]file{{dir("d"), text("d/a", "")}, {dir("d"), text("d/.wh..wh..opq", ""), text("d/b", ""), text("d/.wh.c", "")}},
			"d drwxr-xr-x opaque\nd/b -rw-r--r--\n", "d drwxr-xr-x\nd/b -rw-r--r--\n"},
		"opaque below": {[][]file{{dir("d"), text("d/.wh..wh..opq", ""), text("d/b", "")}, {dir("d"), text("d/.wh.b", "")}},
			"d drwxr-xr-x opaque\n", "d drwxr-xr-x\n"},
		"over a whiteout": {[][]file{{text(".wh.d", "")}, {dir("d"), text("d/a", "")}},
			"d drwxr-xr-x opaque\nd/a -rw-r--r--\n", "d drwxr-xr-x\nd/a -rw-r--r--\n"},
		"over a file": {[][]file{{text("d", "")}, {dir("d"), text("d/a", "")}},
			"d drwxr-xr-x opaque\nd/a -rw-r--r--\n", "d drwxr-xr-x\nd/a -rw-r--r--\n"},
		"whiteout replaced in one layer": {[][]file{{text(".wh.d", ""), dir("d")}},
			"d drwxr-xr-x\n", "d drwxr-xr-x\n"},
		"implied": {[][]file{{text("d/a", "")}, {text("d/b", "")}},
			"d drwxr-xr-x implied\nd/a -rw-r--r--\nd/b -rw-r--r--\n", "d drwxr-xr-x\nd/a -rw-r--r--\nd/b -rw-r--r--\n"},
		"implied, known": {[][]file{{{Name: "d", Type: tar.TypeDir, Mode: 0o700}}, {text("d/b", "")}},
			"d drwx------\nd/b -rw-r--r--\n", "d drwx------\nd/b -rw-r--r--\n"},
		"implied over a file": {[][]file{{text("d", "")}, {text("d/b", "")}},
			"d drwxr-xr-x opaque\nd/b -rw-r--r--\n", "d drwxr-xr-x\nd/b -rw-r--r--\n"},
		"device 0:0": {[][]file{{text("a", "")}, {device("a", 0)}},
			"a Dc--------- whiteout\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []*Index
			for _, files := range tc.layers {
				layers = append(layers, index(t, files...))
			}
			if got := show(merge(t, false, layers...)); got != tc.top {
				t.Errorf("above others: got\n%swant\n%s", got, tc.top)
			}
			if got := show(merge(t, true, layers...)); got != tc.bottom {
				t.Errorf("alone: got\n%swant\n%s", got, tc.bottom)
			}
		})
	}
}

// TestMergeLinks counts the names of an inode in its own layer, hidden ones too.
func TestMergeLinks(t *testing.T) {
	tree := merge(t, true,
		index(t, dir("d"), text("d/a", "1"), hard("b", "d/a"), hard("c", "d/a"), sym("s", "x"), hard("t", "s")),
		index(t, text(".wh.c", ""), dir("d"), dir("d/e"), dir("d/f")))
	nlink := make(map[string]uint32)
	inode := make(map[string]int32)
	for _, n := range tree.Nodes {
		nlink[n.Name], inode[n.Name] = tree.Inodes[n.Inode].Nlink, n.Inode
	}
	if nlink["a"] != 3 || inode["a"] != inode["b"] || nlink["s"] != 2 || inode["s"] != inode["t"] {
		t.Errorf("links %v, inodes %v", nlink, inode)
	}
	if nlink["d"] != 4 || nlink["e"] != 2 || tree.Inodes[0].Nlink != 3 {
		t.Errorf("directories: %v, root %d", nlink, tree.Inodes[0].Nlink)
	}
}

func TestMergeDeep(t *testing.T) {
	deep := index(t, text(strings.Repeat("d/", MaxDepth-1)+"x", ""))
	tree := merge(t, true, deep, deep, deep)
	if len(tree.Nodes) != MaxDepth+1 {
		t.Errorf("%d nodes", len(tree.Nodes))
	}
	checkTree(t, tree)
}

func TestMergeNothing(t *testing.T) {
	if tree := merge(t, true); len(tree.Nodes) != 1 || tree.Inodes[0].Mode != os.ModeDir|0o755 {
		t.Errorf("%+v", tree)
	}
}
