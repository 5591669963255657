package tree

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Diff returns, one line each, what differs between two trees: the paths of one only,
// and each field that is not the same. Directories for which anyMtime is true may have
// any mtime.
func Diff(want, got []Entry, anyMtime func(path string) bool) []string {
	byPath := make(map[string]*Entry, len(got))
	for i := range got {
		byPath[got[i].Path] = &got[i]
	}
	var lines []string
	for i := range want {
		w := &want[i]
		g, ok := byPath[w.Path]
		if !ok {
			lines = append(lines, fmt.Sprintf("%q: missing", w.Path))
			continue
		}
		delete(byPath, w.Path)
		lines = append(lines, fields(w, g, w.IsDir() && anyMtime != nil && anyMtime(w.Path))...)
	}
	for _, p := range slices.Sorted(maps.Keys(byPath)) {
		lines = append(lines, fmt.Sprintf("%q: not expected", p))
	}
	return lines
}

// fields compares two entries of one path.
func fields(w, g *Entry, anyMtime bool) []string {
	var lines []string
	check := func(name string, want, got any) {
		if want != got {
			lines = append(lines, fmt.Sprintf("%q: %s: want %v, have %v", w.Path, name, want, got))
		}
	}
	check("mode", fmt.Sprintf("%#o", w.Mode), fmt.Sprintf("%#o", g.Mode))
	check("uid", w.UID, g.UID)
	check("gid", w.GID, g.GID)
	check("size", w.Size, g.Size)
	if !anyMtime {
		check("mtime", w.Mtime, g.Mtime)
	}
	check("target", w.Target, g.Target)
	check("device", w.Rdev, g.Rdev)
	check("link count", w.Nlink, g.Nlink)
	check("hard link to", w.Link, g.Link)
	check("content", w.Sum, g.Sum)
	check("xattrs", xattrs(w), xattrs(g))
	return lines
}

func xattrs(e *Entry) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		fmt.Fprintf(&b, "%s=%q ", name, e.Xattrs[name])
	}
	return b.String()
}
