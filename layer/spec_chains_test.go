package layer

import (
	"archive/tar"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The notation of tars, indexes and chains in the specification ("Examples of tars",
// "Examples of chains"): d/ is a directory, f=g a hard link, s>t a symlink, c%0:0 a character
// device, d/:0700 has another mode, @name=value is an extended attribute, !mark a flag.

// parseItem reads an entry of a tar.
func parseItem(t *testing.T, item string) file {
	t.Helper()
	item, attributes, _ := strings.Cut(item, "@")
	var f file
	if name, target, ok := strings.Cut(item, ">"); ok {
		f = sym(name, target)
	} else if name, target, ok := strings.Cut(item, "="); ok {
		f = hard(name, target)
	} else if name, numbers, ok := strings.Cut(item, "%"); ok {
		f = file{Name: name, Type: tar.TypeChar}
		if _, err := fmt.Sscanf(numbers, "%d:%d", &f.Major, &f.Minor); err != nil {
			t.Fatalf("%q: %v", item, err)
		}
	} else {
		name, mode, _ := strings.Cut(item, ":")
		if f = text(name, ""); strings.HasSuffix(name, "/") {
			f = dir(strings.TrimSuffix(name, "/"))
		}
		if mode != "" {
			var err error
			if f.Mode, err = strconv.ParseInt(mode, 8, 64); err != nil {
				t.Fatalf("%q: %v", item, err)
			}
		}
	}
	for _, a := range strings.Split(attributes, "@") {
		if name, value, ok := strings.Cut(a, "="); ok {
			if f.Xattrs == nil {
				f.Xattrs = make(map[string]string)
			}
			f.Xattrs[name] = value
		}
	}
	return f
}

// parseTar makes the index of a tar.
func parseTar(t *testing.T, items string) *Index {
	t.Helper()
	var files []file
	for _, item := range strings.Fields(items) {
		files = append(files, parseItem(t, item))
	}
	return index(t, files...)
}

// A mark is a flag and its sign.
type mark struct {
	on   bool
	sign string
}

func marks(all ...mark) string {
	out := ""
	for _, m := range all {
		if m.on {
			out += m.sign
		}
	}
	return out
}

// spelledIndex writes an index.
func spelledIndex(x *Index) string {
	var items []string
	for i := 1; i < len(x.Entries); i++ {
		e := &x.Entries[i]
		item := x.Path(i)
		switch {
		case e.Link >= 0:
			item += "=" + x.Path(int(e.Link))
		case e.Mode&os.ModeSymlink != 0:
			item += ">" + e.Target
		case e.Mode.IsDir():
			item += "/"
		}
		items = append(items, item+marks(mark{e.Implied, "!implied"}, mark{e.Opaque, "!opaque"}, mark{e.KeepXattrs, "!keep"}, mark{e.Whiteout, "!whiteout"}))
	}
	return strings.Join(items, " ")
}

// spelledTree writes what a chain shows.
func spelledTree(tree *flatTree) string {
	var items []string
	eachName(tree, func(p, first string, n *Inode) { items = append(items, spelledInode(p, first, n)) })
	if len(items) == 0 {
		return "-"
	}
	return strings.Join(items, " ")
}

// spelledInode writes one name; linked is another one of the same inode, if any.
func spelledInode(p, linked string, n *Inode) string {
	switch {
	case linked != "":
		return p + "=" + linked
	case n.Whiteout:
		return p + "!whiteout"
	case n.Mode&os.ModeSymlink != 0:
		p += ">" + n.Target
	case n.Mode&os.ModeDevice != 0:
		major, minor := n.Device()
		p += fmt.Sprintf("%%%d:%d", major, minor)
	case n.Mode.IsDir():
		if p += "/"; octal(n.Mode) != "0755" {
			p += ":" + octal(n.Mode)
		}
	}
	for _, a := range n.Xattrs() {
		p += "@" + a.Name + "=" + a.Value
	}
	return p + marks(mark{n.Implied, "!implied"}, mark{n.Opaque, "!opaque"})
}

// eachExample executes the lines of blocks, INPUT => RESULT.
func eachExample(t *testing.T, fences []fence, execute func(t *testing.T, input string) string) {
	t.Helper()
	for _, f := range fences {
		for i, line := range f.lines() {
			input, want, ok := strings.Cut(line, "=>")
			if !ok {
				t.Errorf("%s:%d: no result", f.file, f.line+i)
				continue
			}
			want = strings.Join(strings.Fields(want), " ")
			t.Run(strings.TrimSpace(input), func(t *testing.T) {
				if got := execute(t, input); got != want {
					t.Errorf("%s:%d: it is %s, want %s", f.file, f.line+i, got, want)
				}
			})
		}
	}
}

func specApply(t *testing.T, fences []fence) {
	eachExample(t, fences, func(t *testing.T, input string) string { return spelledIndex(parseTar(t, input)) })
}

func specMerge(t *testing.T, fences []fence) { specChains(t, fences, true) }

func specMergeAbove(t *testing.T, fences []fence) { specChains(t, fences, false) }

func specChains(t *testing.T, fences []fence, bottom bool) {
	t.Helper()
	eachExample(t, fences, func(t *testing.T, input string) string {
		var layers []*Index
		for _, items := range strings.Split(input, "|") {
			layers = append(layers, parseTar(t, items))
		}
		return spelledTree(merge(t, bottom, layers...))
	})
}
