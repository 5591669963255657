package convert_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
)

// TestSince writes seeds of the next version of an image: what those of the version before have is not in them, but these are
// kept with it.
func TestSince(t *testing.T) {
	node := ipfstest.NewMemory()
	var noise [3 << 20]byte
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise[:]) // never fails
	large, fresh := string(noise[1<<20:]), string(noise[:1<<17])
	write := func(since convert.Source, files ...string) (*memory, *seeded) {
		src, dst := newMemory(), newMemory()
		newImage("amd64").files(src, files...).store(src)
		mustConvert(t, convert.Options{Source: src, Target: dst, Node: node, Seeds: true, Since: since})
		dst.top = dst.tagged
		return dst, openSeeds(t, dst)
	}
	first, old := write(nil, large, "in both", "old")
	second, next := write(first, large, "in both", fresh)
	before := *old.record.Layers[0].Seed
	if !slices.Equal(next.record.Seeds, []layer.Seed{before}) {
		t.Fatalf("seeds of other images: %+v", next.record.Seeds)
	}
	if second.blobs[before.Digest] == nil {
		t.Error("the target has not got the seed of the version before")
	}
	if size := next.record.Layers[0].Seed.Size; size > before.Size/2 {
		t.Errorf("the new seed has %d bytes, the old one %d", size, before.Size)
	}
	for text, want := range map[string]int{"in both": 0, fresh: 1} {
		if in := next.find(t, rawCid(t, text), []byte(text)); len(in) != want {
			t.Errorf("%.10q is in %d new seeds", text, len(in))
		}
	}
	if in := old.find(t, rawCid(t, "in both"), []byte("in both")); len(in) != 1 {
		t.Error("it is not in the old one either")
	}

	// The version after that has both seeds.
	third, last := write(second, large, "in both", fresh)
	if len(last.record.Seeds) != 2 || third.blobs[before.Digest] == nil || third.blobs[next.record.Layers[0].Seed.Digest] == nil {
		t.Errorf("seeds of other images: %+v", last.record.Seeds)
	}
	// What is of little use is not kept for it.
	if _, other := write(second, "in both", "something else"); len(other.record.Seeds) > 0 {
		t.Errorf("seeds of other images: %+v", other.record.Seeds)
	}
	checkOne(t, third, node)
}

// checkOne makes an image of one layer an ordinary one.
func checkOne(t *testing.T, image *memory, node convert.Node) {
	t.Helper()
	if _, err := convert.Restore(t.Context(), convert.Options{Source: image, Target: newMemory(), Node: node, Compression: convert.None}); err != nil {
		t.Error(err)
	}
}

// TestSinceNothing names images that have no seeds, or broken ones.
func TestSinceNothing(t *testing.T) {
	node, src := ipfstest.NewMemory(), newMemory()
	newImage("amd64").files(src, "file").store(src)
	plain, seeded, foreign := newMemory(), newMemory(), newMemory()
	mustConvert(t, convert.Options{Source: src, Target: plain, Node: node})
	mustConvert(t, convert.Options{Source: src, Target: seeded, Node: node, Seeds: true})
	arm := newMemory()
	newImage("arm64").files(arm, "file").store(arm)
	mustConvert(t, convert.Options{Source: arm, Target: foreign, Node: node, Seeds: true})
	plain.top, seeded.top, foreign.top = plain.tagged, seeded.tagged, foreign.tagged
	s := openSeeds(t, seeded)
	for d, b := range seeded.blobs {
		if d == s.record.Layers[0].Seed.Digest {
			seeded.blobs[d] = append(slices.Clone(b[:len(b)-1]), 'D')
		}
	}
	for _, tt := range []struct {
		since *memory
		want  error
	}{{src, convert.ErrNoSeeds}, {plain, convert.ErrNoSeeds}, {foreign, convert.ErrNoSeeds}, {seeded, seed.ErrSeed}} {
		_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: newMemory(), Node: node, Seeds: true, Since: tt.since})
		if !errors.Is(err, tt.want) {
			t.Errorf("%v, want %v", err, tt.want)
		}
	}
}
