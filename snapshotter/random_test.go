//go:build linux

package snapshotter_test

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
)

// randomLayer makes a layer over few names, so that layers meet. Within the layer nothing
// contradicts: no path is twice, or below what is no directory. With implied, half of the
// directories have no entry of their own; then directories have other names than the rest,
// and are not hidden: containerd refuses layers that imply a directory below what is none
// in any other layer, and gives it attributes of a directory that is hidden.
func randomLayer(rng *rand.Rand, implied bool) (entries []entry) {
	kinds := map[string]byte{".": 'd'}
	var mkdir func(name string) bool
	mkdir = func(name string) bool {
		if kind, ok := kinds[name]; ok {
			return kind == 'd'
		}
		if !mkdir(path.Dir(name)) {
			return false
		}
		kinds[name] = 'd'
		if !implied || rng.IntN(2) == 0 {
			d := dir(name, int64(0o700|rng.IntN(0o100)))
			d.Uid = rng.IntN(3)
			entries = append(entries, d)
			if !implied && rng.IntN(5) == 0 {
				entries = append(entries, file(name+"/.wh..wh..opq", "", 0))
			}
		}
		return true
	}
	var files []string
	for i := range 25 {
		name := randomPath(rng, implied)
		if _, ok := kinds[name]; ok || !mkdir(path.Dir(name)) {
			continue
		}
		kind := "ffffdlwwhx"[rng.IntN(10)]
		if kind == 'h' && len(files) == 0 {
			kind = 'f'
		}
		kinds[name] = kind
		switch kind {
		case 'f':
			entries = append(entries, file(name, fmt.Sprint(rng.IntN(3), name)[:rng.IntN(3)], int64(0o600|rng.IntN(0o100))))
			files = append(files, name)
		case 'd':
			delete(kinds, name)
			if implied {
				name = path.Join(path.Dir(name), strings.ToUpper(path.Base(name)))
			}
			mkdir(name)
		case 'l':
			entries = append(entries, special(tar.TypeSymlink, name, fmt.Sprint("../", i)))
		case 'w':
			entries = append(entries, file(path.Join(path.Dir(name), ".wh."+path.Base(name)), "", 0))
		case 'h':
			entries = append(entries, special(tar.TypeLink, name, files[rng.IntN(len(files))]))
		case 'x':
			entries = append(entries, special(tar.TypeFifo, name, "").with("trusted.x", name))
		}
	}
	return entries
}

// randomPath returns a path of few names, with directories in capitals if implied.
func randomPath(rng *rand.Rand, implied bool) string {
	parts := make([]string, 1+rng.IntN(4))
	for i := range parts {
		parts[i] = string(rune('a' + rng.IntN(4)))
		if implied && i < len(parts)-1 {
			parts[i] = strings.ToUpper(parts[i])
		}
	}
	return strings.Join(parts, "/")
}

// TestRandom compares random chains with the overlay snapshotter.
func TestRandom(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 5))
			l := newLab(t)
			var layers [][]entry
			kinds := ""
			for range 2 + rng.IntN(4) {
				layers = append(layers, append(randomLayer(rng, seed%2 == 0), file("always", "x", 0o644)))
				kinds += string("iio"[rng.IntN(3)])
			}
			t.Log("layers are", kinds)
			ipcs, plain := l.build(kinds, layers)
			compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
		})
	}
}
