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
		"implied":            {{{name: "d", typ: tar.TypeDir, mode: 0o1750, uid: 3, gid: 4, xattrs: map[string]string{"user.x": "y"}}, text("d/a", "")}, {text("d/b", "")}, {text("d/c/e", "")}},
		"implied then own":   {{{name: "d", typ: tar.TypeDir, mode: 0o750, xattrs: map[string]string{"user.x": "y", "user.z": "1"}}}, {text("d/b", ""), {name: "d", typ: tar.TypeDir, mode: 0o700, xattrs: map[string]string{"user.z": "2"}}}, {text("d/c", "")}},
		"implied on symlink": {{dir("usr"), {name: "usr/lib", typ: tar.TypeDir, mode: 0o711, uid: 9}, sym("lib", "usr/lib"), text("lib/a", "")}, {text("lib/b", "")}},
		"implied on opaque":  {{dir("a"), {name: "a/b", typ: tar.TypeDir, mode: 0o711}}, {dir("a"), text("a/.wh..wh..opq", "")}, {text("a/b/c", "")}},
		"implied on file":    {{{name: "a", typ: tar.TypeDir, mode: 0o711}}, {text("a", "")}, {text("a/c", "")}},
		"hard links":         {{text("a", "1"), hard("b", "a"), hard("c", "a")}, {text(".wh.b", "")}, {hard("x", "y"), text("y", "")}},
		"links set metadata": {{{name: "a", body: "1", mode: 0o4755, uid: 5, xattrs: caps}, {name: "b", typ: tar.TypeLink, link: "a", mode: 0o600, uid: 7, sec: 9}, {name: "c", typ: tar.TypeLink, link: "b", mode: 0o644, xattrs: map[string]string{"user.b": "2"}}}},
		"capabilities":       {{{name: "a", body: "1", mode: 0o755, uid: 5, xattrs: caps}}},
		"attributes":         {{{name: "a", xattrs: map[string]string{"user.a": "1", "trusted.b": "2", "nonsense": "3", "com.apple.x": "4"}}, {name: "s", typ: tar.TypeSymlink, link: "a", xattrs: map[string]string{"user.a": "1"}}, {name: "p", typ: tar.TypeFifo, xattrs: map[string]string{"user.a": "1"}}}},
		"device 0:0":         {{text("a", "1"), text("b", "")}, {device("a", 0), hard("b", "a"), device("c", 0)}, {device("n", 1)}},
		"large device":       {{{name: "a", typ: tar.TypeChar, major: 4096, minor: 0}, {name: "b", typ: tar.TypeBlock, major: 4097, minor: 1<<20 + 3}}},
		"times":              {{{name: "a", sec: -5}, {name: "b", sec: 1 << 33}, {name: "c", sec: 1 << 34}, {name: "d", typ: tar.TypeDir, mode: 0o700, sec: 77}, {name: "d/x", sec: 5}, {name: "s", typ: tar.TypeSymlink, link: "x", sec: 12}}},
		"dir times at end":   {{{name: "a", typ: tar.TypeDir, mode: 0o755, sec: 5}, {name: "b", typ: tar.TypeDir, mode: 0o755, sec: 6}, sym("a", "b"), {name: "c", typ: tar.TypeDir, mode: 0o755, sec: 7}, text("c", "file")}},
		"huge owner":         {{{name: "a", uid: 1<<32 + 7, gid: 1<<32 - 1}, {name: "b", uid: -1, gid: 5}}},
		"long names":         {{text(strings.Repeat("n", 255), "x"), text(".wh."+strings.Repeat("m", 255), "")}},
		"linked symlink":     {{sym("s", "f"), hard("t", "s"), text("f", "")}},
		"global header":      {{text("g", ""), {name: "g", typ: tar.TypeXGlobalHeader}, {name: "h/g", typ: tar.TypeXGlobalHeader}}},
		"through symlinks":   {{dir("r"), dir("r/s"), sym("a", "r/s"), sym("b", "a/../t"), text("a/x", ""), text("b/y", ""), hard("a/z", "b/y")}},
		"root entries":       {{{name: "./", typ: tar.TypeDir, mode: 0o700, uid: 9}, text("x", "")}, {text(".", "")}},
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
	f := file{name: g.path(), mode: int64(1 + g.Intn(0o7777)), uid: g.Intn(3), gid: g.Intn(3), sec: int64(g.Intn(1 << 20))}
	switch g.Intn(12) {
	case 0, 1, 2:
		f.typ = tar.TypeDir
	case 3, 4:
		f.typ, f.link = tar.TypeSymlink, g.one(g.path(), "/"+g.path(), "../"+g.path(), "..", "/", ".", g.path()+"/../"+g.path())
	case 5:
		f.typ, f.link = tar.TypeLink, g.one(g.path(), g.path()+"/../"+g.path(), "./"+g.path())
	case 6:
		dir, base := "", f.name
		if i := strings.LastIndexByte(base, '/'); i >= 0 {
			dir, base = base[:i+1], base[i+1:]
		}
		f.name = dir + ".wh." + g.one(base, base, ".wh..opq")
	case 7:
		f.typ, f.major, f.minor = tar.TypeChar, int64(g.Intn(2)), int64(g.Intn(2))
	default:
		f.body = strings.Repeat("x", g.Intn(3))
	}
	if g.Intn(3) == 0 {
		f.xattrs = map[string]string{g.one("user.a", "user.b", "trusted.c"): g.one("1", "2")}
		if f.typ == 0 && g.Intn(2) == 0 {
			f.xattrs["security.capability"] = capability
		}
	}
	return f
}
