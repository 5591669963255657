package compare_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hinshun/ipcs/internal/compare"
	"github.com/hinshun/ipcs/internal/convert"
)

const mib = 1 << 20

// three makes images of which it is known what they share: all have "all", two "ab"; and large files that differ in one block.
func three(t testing.TB) (refs []string) {
	t.Helper()
	block := func(c string) string { return strings.Repeat(c, mib) }
	base := []file{{name: "all", data: "what all have"}, {name: "empty"}}
	a := newLayout(t).layer(base...).layer(
		file{name: "ab", data: "what two have", date: 1}, file{name: "copy1", data: "twice"}, file{name: "copy2", data: "twice"}, file{name: "large", data: block("1") + block("2") + block("3")})
	b := newLayout(t).layer(base...).layer(
		file{name: "ab", data: "what two have", date: 2, uid: 7}, file{name: "large", data: block("1") + block("x") + block("3")})
	c := newLayout(t).layer(file{name: "all", data: "what all have"}, file{name: "own", data: "what one has"})
	return []string{a.ref(), b.ref(), c.ref()}
}

func level(t testing.TB, r *compare.Report, name string) compare.Level {
	t.Helper()
	for _, l := range r.Levels {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no level %s", name)
	return compare.Level{}
}

// sets are the amounts of a level, by the images that have them.
func sets(l compare.Level) map[string]compare.Amount {
	out := map[string]compare.Amount{}
	for _, s := range l.Sets {
		var names []string
		for _, i := range s.Images {
			names = append(names, strconv.Itoa(i))
		}
		out[strings.Join(names, " ")] = s.Amount
	}
	for i, im := range l.Images {
		if im.Unique.Count > 0 {
			out[strconv.Itoa(i)] = im.Unique
		}
	}
	return out
}

// TestCompare has images of which it is known what they share.
func TestCompare(t *testing.T) {
	var read atomic.Int64
	opts := options(&read, three(t)...)
	opts.Cache = compare.NewCache(filepath.Join(t.TempDir(), "cache"))
	r := mustCompare(t, opts)
	for name, want := range map[string]map[string]compare.Amount{
		compare.LevelFile: {
			"0 1 2": {1, 13}, "0 1": {2, 13}, "0": {2, 5 + 3*mib}, "1": {1, 3 * mib}, "2": {1, 12},
		},
		compare.LevelBlock: {"0 1 2": {1, 13}, "0 1": {3, 13 + 2*mib}, "0": {2, 5 + mib}, "1": {1, mib}, "2": {1, 12}},
		// Four equal parts are one.
		compare.LevelPart: {"0 1 2": {1, 13}, "0 1": {3, 13 + 2*mib/4}, "0": {2, 5 + mib/4}, "1": {1, mib / 4}, "2": {1, 12}},
	} {
		if got := sets(level(t, r, name)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := sets(level(t, r, compare.LevelBlob)); got["0 1"].Count != 1 || got["0"].Count != 1 || got["2"].Count != 1 {
		t.Errorf("layers: %v", got)
	}
	if got := r.Images[0].Copies; got != (compare.Amount{Count: 1, Bytes: 5}) {
		t.Errorf("copies: %+v", got)
	}
	if want := (compare.Touched{Files: compare.Amount{Count: 1, Bytes: 13}, Owner: compare.Amount{Count: 1, Bytes: 13}, Date: compare.Amount{Count: 1, Bytes: 13}}); r.Touched != want {
		t.Errorf("touched: %+v", r.Touched)
	}
	if f := r.Unshared[0]; f.Path != "/large" || f.Bytes != 3*mib {
		t.Errorf("largest of one image: %+v", f)
	}
	if f := r.Shared[0]; f.Bytes != 13 || len(f.Images) < 2 {
		t.Errorf("largest of several: %+v", f)
	}
	checkPairs(t, r)
	if n := read.Load(); n != 4 {
		t.Errorf("%d layers were read, there are 4", n)
	}
	opts.Workers = 1
	again := mustCompare(t, opts)
	if n := read.Load(); n != 4 {
		t.Errorf("the second time, %d layers were read", n-4)
	}
	if !reflect.DeepEqual(asJSON(t, r), asJSON(t, again)) {
		t.Errorf("the second time says\n%s\nthe first\n%s", asJSON(t, again), asJSON(t, r))
	}
}

func asJSON(t testing.TB, r *compare.Report) string {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkPairs knows what it takes to pull the second image where the first is.
func checkPairs(t *testing.T, r *compare.Report) {
	t.Helper()
	if len(r.Pairs) != 6 {
		t.Fatalf("%d pairs", len(r.Pairs))
	}
	p := r.Pairs[0]
	if p.Here != 0 || p.Get != 1 || p.Shared[compare.LevelFile] != (compare.Amount{Count: 3, Bytes: 26}) {
		t.Errorf("the first pair is %+v", p)
	}
	if second := r.Images[1].Layers[1]; p.Registry != second.Blob {
		t.Errorf("%d bytes to pull from a registry, the layer has %d", p.Registry, second.Blob)
	}
	if p.Raw < mib || p.Raw > mib+2000 || p.Wire < 10 || p.Wire > 3000 {
		t.Errorf("one block and one index are %d bytes, %d on the wire", p.Raw, p.Wire)
	}
}

// TestDamagedCache reads a layer again if what is known of it is damaged, or of something else.
func TestDamagedCache(t *testing.T) {
	var read atomic.Int64
	refs := three(t)
	dir := t.TempDir()
	opts := options(&read, refs...)
	opts.Cache = compare.NewCache(dir)
	want := asJSON(t, mustCompare(t, opts))
	files, err := filepath.Glob(filepath.Join(dir, "sha256", "*"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%q, %v", files, err)
	}
	for name, damage := range map[string]func(data []byte) []byte{
		"a bit":     func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"its end":   func(data []byte) []byte { return data[:len(data)-1] },
		"all of it": func([]byte) []byte { return nil },
	} {
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		read.Store(0)
		if got := asJSON(t, mustCompare(t, opts)); got != want {
			t.Errorf("%s is wrong: the report says\n%s\nwant\n%s", name, got, want)
		}
		if read.Load() != 4 {
			t.Errorf("%s is wrong, and %d layers were read", name, read.Load())
		}
		if mustCompare(t, opts); read.Load() != 4 {
			t.Errorf("%s was wrong, and %d layers are read again", name, read.Load()-4)
		}
	}
	foreign := filepath.Join(dir, "sha256", "holidays.txt")
	for _, f := range []string{foreign, filepath.Join(dir, "sha256", strings.Repeat("ab", 32)), filepath.Join(dir, "letter")} {
		if err := os.WriteFile(f, []byte("somebody's own"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := opts.Cache.Prune(0); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "sha256", "*")); len(files) != 2 {
		t.Errorf("pruned, and %q are there", files)
	}
}

// TestKeepGoing leaves out what cannot be read, and else fails by it.
func TestKeepGoing(t *testing.T) {
	var read atomic.Int64
	refs := three(t)
	broken := newLayout(t).layer(file{name: "lost", data: "lost"})
	refs = append(refs, broken.ref(), "oci:"+t.TempDir())
	if err := os.Remove(filepath.Join(broken.dir, "blobs/sha256", broken.layers[0].Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	opts := options(&read, refs...)
	if _, err := compare.Compare(t.Context(), opts); err == nil || !strings.Contains(err.Error(), refs[4]) {
		t.Errorf("an image that is not there: %v", err)
	}
	opts.Refs = refs[:4]
	if _, err := compare.Compare(t.Context(), opts); err == nil || !strings.Contains(err.Error(), refs[3]) {
		t.Errorf("a layer that is not there: %v", err)
	}
	opts.Refs, opts.KeepGoing = refs, true
	r := mustCompare(t, opts)
	if len(r.Images) != 3 || len(r.Failed) != 2 {
		t.Errorf("%d images, failed are %+v", len(r.Images), r.Failed)
	}
	opts.Refs, opts.KeepGoing = refs[:3], false
	want := mustCompare(t, opts)
	r.Failed = nil
	if asJSON(t, r) != asJSON(t, want) {
		t.Error("what could not be read is in the report all the same")
	}
	opts.Refs, opts.KeepGoing = refs[3:], true
	if _, err := compare.Compare(t.Context(), opts); err == nil {
		t.Error("nothing can be read, and there is a report")
	}
}

// TestSharedLayer has two images with one layer, of which one has lost it: the other has it for both.
func TestSharedLayer(t *testing.T) {
	var read atomic.Int64
	broken, good := newLayout(t).layer(file{name: "base", data: "base"}), newLayout(t).layer(file{name: "base", data: "base"})
	refs := []string{broken.ref(), good.ref()}
	if err := os.Remove(filepath.Join(broken.dir, "blobs/sha256", broken.layers[0].Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	if r := mustCompare(t, options(&read, refs...)); len(r.Images) != 2 {
		t.Errorf("%d images", len(r.Images))
	}
}

// TestSameLayer has one tar in two compressions, and a layer twice in an image: layers are the same by their tars where they are unpacked and converted.
func TestSameLayer(t *testing.T) {
	var read atomic.Int64
	files := []file{{name: "a", data: strings.Repeat("a", 100_000)}, {name: "b", data: "b"}}
	one, two := newLayout(t).layer(files...), newLayout(t)
	two.level = gzip.BestSpeed
	two.layer(files...).layer(files...)
	r := mustCompare(t, options(&read, one.ref(), two.ref()))
	if one.layers[0].Digest == two.layers[0].Digest {
		t.Fatal("the two are compressed in the same way")
	}
	if p := r.Pairs[0]; p.Raw != 0 || p.Wire != 0 || p.Registry == 0 {
		t.Errorf("to pull what is there, compressed in another way: %+v", p)
	}
	if r.Disk.Unpacked != 2*(r.Disk.Files+4096) { // with the directory; two layers of the second image, the first of them that of the first image
		t.Errorf("unpacked are %d bytes, files %d", r.Disk.Unpacked, r.Disk.Files)
	}
	if im := r.Images[1]; im.Files.Count != 4 || im.Copies.Count != 2 {
		t.Errorf("a layer that is there twice: %+v, copies %+v", im.Files, im.Copies)
	}
}

// TestTouchedWithin has an image that changes the owner of a file in a second layer: it is the same as itself, and not as one without that layer.
func TestTouchedWithin(t *testing.T) {
	var read atomic.Int64
	base := file{name: "f", data: "data"}
	changed := base
	changed.uid = 5
	image := newLayout(t).layer(base).layer(changed)
	ref, plain := image.ref(), newLayout(t).layer(base).ref()
	if r := mustCompare(t, options(&read, ref, ref)); r.Touched.Files.Count != 0 {
		t.Errorf("an image differs from itself: %+v", r.Touched)
	}
	if r := mustCompare(t, options(&read, ref, plain)); r.Touched.Owner.Count != 1 || r.Touched.Date.Count != 0 {
		t.Errorf("touched: %+v", r.Touched)
	}
}

// TestNoNode has an ipcs image, and no node.
func TestNoNode(t *testing.T) {
	var read atomic.Int64
	opts := options(&read, "oci:"+t.TempDir())
	if _, err := compare.Compare(t.Context(), opts); err == nil {
		t.Error("an empty folder is an image")
	}
	opts.Refs = nil
	if _, err := compare.Compare(t.Context(), opts); err == nil {
		t.Error("nothing is compared")
	}
	opts.Refs = []string{"oci:"}
	if _, err := compare.Compare(t.Context(), opts); !errors.Is(err, convert.ErrReference) {
		t.Errorf("no reference: %v", err)
	}
}
