//go:build linux

package layer

import (
	"archive/tar"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/hosttest"
)

const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// TestLikeContainerd holds Write and Merge to containerd and the kernel, case by case.
func TestLikeContainerd(t *testing.T) {
	hosttest.Root(t)
	caps := map[string]string{"security.capability": capability, "user.a": "1"}
	for name, layers := range map[string][][]file{
		"whiteouts":          {{dir("d"), text("d/a", "1"), text("d/b", "2"), text("e", "3")}, {dir("d"), text("d/.wh.a", ""), text(".wh.e", "")}, {text("e", "4")}},
		"opaque":             {{dir("d"), text("d/a", "1"), dir("d/s"), text("d/s/x", "")}, {dir("d"), text("d/.wh..wh..opq", ""), text("d/b", "2")}, {dir("d"), text("d/c", "")}},
		"opaque root":        {{text("a", "1")}, {text(".wh..wh..opq", ""), text("b", "2")}},
		"replaced":           {{dir("d"), text("d/a", ""), text("f", "")}, {text("d", "file"), dir("f")}, {dir("d"), text("d/b", "")}},
		"whiteout then dir":  {{dir("d"), text("d/a", "")}, {text(".wh.d", ""), dir("d"), text("d/b", "")}},
		"implied":            {{{Name: "d", Type: tar.TypeDir, Mode: 0o1750, UID: 3, GID: 4, Xattrs: map[string]string{"user.x": "y"}}, text("d/a", "")}, {text("d/b", "")}, {text("d/c/e", "")}},
		"implied then own":   {{{Name: "d", Type: tar.TypeDir, Mode: 0o750, Xattrs: map[string]string{"user.x": "y", "user.z": "1"}}}, {text("d/b", ""), {Name: "d", Type: tar.TypeDir, Mode: 0o700, Xattrs: map[string]string{"user.z": "2"}}}, {text("d/c", "")}},
		"implied on symlink": {{dir("usr"), {Name: "usr/lib", Type: tar.TypeDir, Mode: 0o711, UID: 9}, sym("lib", "usr/lib"), text("lib/a", "")}, {text("lib/b", "")}},
		"implied on opaque":  {{dir("a"), {Name: "a/b", Type: tar.TypeDir, Mode: 0o711}}, {dir("a"), text("a/.wh..wh..opq", "")}, {text("a/b/c", "")}},
		"implied on file":    {{{Name: "a", Type: tar.TypeDir, Mode: 0o711}}, {text("a", "")}, {text("a/c", "")}},
		"hard links":         {{text("a", "1"), hard("b", "a"), hard("c", "a")}, {text(".wh.b", "")}, {hard("x", "y"), text("y", "")}},
		"links set metadata": {{{Name: "a", Body: "1", Mode: 0o4755, UID: 5, Xattrs: caps}, {Name: "b", Type: tar.TypeLink, Link: "a", Mode: 0o600, UID: 7, Sec: 9}, {Name: "c", Type: tar.TypeLink, Link: "b", Mode: 0o644, Xattrs: map[string]string{"user.b": "2"}}}},
		"capabilities":       {{{Name: "a", Body: "1", Mode: 0o755, UID: 5, Xattrs: caps}}},
		"attributes":         {{{Name: "a", Xattrs: map[string]string{"user.a": "1", "trusted.b": "2", "nonsense": "3", "com.apple.x": "4"}}, {Name: "s", Type: tar.TypeSymlink, Link: "a", Xattrs: map[string]string{"user.a": "1"}}, {Name: "p", Type: tar.TypeFifo, Xattrs: map[string]string{"user.a": "1"}}}},
		"device 0:0":         {{text("a", "1"), text("b", "")}, {device("a", 0), hard("b", "a"), device("c", 0)}, {device("n", 1)}},
		"large device":       {{{Name: "a", Type: tar.TypeChar, Major: 4096, Minor: 0}, {Name: "b", Type: tar.TypeBlock, Major: 4097, Minor: 1<<20 + 3}}},
		"times":              {{{Name: "a", Sec: -5}, {Name: "b", Sec: 1 << 33}, {Name: "c", Sec: 1 << 34}, {Name: "d", Type: tar.TypeDir, Mode: 0o700, Sec: 77}, {Name: "d/x", Sec: 5}, {Name: "s", Type: tar.TypeSymlink, Link: "x", Sec: 12}}},
		"dir times at end":   {{{Name: "a", Type: tar.TypeDir, Mode: 0o755, Sec: 5}, {Name: "b", Type: tar.TypeDir, Mode: 0o755, Sec: 6}, sym("a", "b"), {Name: "c", Type: tar.TypeDir, Mode: 0o755, Sec: 7}, text("c", "file")}},
		"huge owner":         {{{Name: "a", UID: 1<<32 + 7, GID: 1<<32 - 1}, {Name: "b", UID: -1, GID: 5}}},
		"long names":         {{text(strings.Repeat("n", 255), "x"), text(".wh."+strings.Repeat("m", 255), "")}},
		"linked symlink":     {{sym("s", "f"), hard("t", "s"), text("f", "")}},
		"global header":      {{text("g", ""), {Name: "g", Type: tar.TypeXGlobalHeader}, {Name: "h/g", Type: tar.TypeXGlobalHeader}}},
		"through symlinks":   {{dir("r"), dir("r/s"), sym("a", "r/s"), sym("b", "a/../t"), text("a/x", ""), text("b/y", ""), hard("a/z", "b/y")}},
		"root entries":       {{{Name: "./", Type: tar.TypeDir, Mode: 0o700, UID: 9}, text("x", "")}, {text(".", "")}},
	} {
		t.Run(name, func(t *testing.T) { runDifferential(t, layers) })
	}
}

// TestLikeContainerdRandom does the same with random tars over few names, so that entries
// run into each other in ways that nobody thinks of.
func TestLikeContainerdRandom(t *testing.T) {
	hosttest.Root(t)
	n := 150
	if testing.Short() {
		n = 20
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			g := generator{rand.New(rand.NewSource(int64(seed)))}
			layers := make([][]file, 1+g.Intn(4))
			for i := range layers {
				layers[i] = g.files(1 + g.Intn(9))
			}
			runDifferential(t, layers)
		})
	}
}

type generator struct{ *rand.Rand }

func (g generator) one(of ...string) string { return of[g.Intn(len(of))] }

func (g generator) path() string {
	p := g.one("a", "b", "c", "d")
	for g.Intn(2) == 0 {
		p += "/" + g.one("a", "b", "c", "d")
	}
	return p
}

func (g generator) files(n int) []file {
	files := make([]file, n)
	for i := range files {
		files[i] = g.file()
	}
	return files
}

func (g generator) file() file {
	f := file{Name: g.path(), Mode: int64(1 + g.Intn(0o7777)), UID: g.Intn(3), GID: g.Intn(3), Sec: int64(g.Intn(1 << 20))}
	switch g.Intn(12) {
	case 0, 1, 2:
		f.Type = tar.TypeDir
	case 3, 4:
		f.Type, f.Link = tar.TypeSymlink, g.one(g.path(), "/"+g.path(), "../"+g.path(), "..", "/", ".", g.path()+"/../"+g.path())
	case 5:
		f.Type, f.Link = tar.TypeLink, g.one(g.path(), g.path()+"/../"+g.path(), "./"+g.path())
	case 6:
		dir, base := "", f.Name
		if i := strings.LastIndexByte(base, '/'); i >= 0 {
			dir, base = base[:i+1], base[i+1:]
		}
		f.Name = dir + ".wh." + g.one(base, base, ".wh..opq")
	case 7:
		f.Type, f.Major, f.Minor = tar.TypeChar, int64(g.Intn(2)), int64(g.Intn(2))
	default:
		f.Body = strings.Repeat("x", g.Intn(3))
	}
	if g.Intn(3) == 0 {
		f.Xattrs = map[string]string{g.one("user.a", "user.b", "trusted.c"): g.one("1", "2")}
		if f.Type == 0 && g.Intn(2) == 0 {
			f.Xattrs["security.capability"] = capability
		}
	}
	return f
}
