package origin

import (
	"testing"

	"github.com/hinshun/ipcs/internal/origin/origintest"
	"github.com/hinshun/ipcs/internal/seed"
)

// tablesOf returns the seeds of an image, and their tables.
func tablesOf(t *testing.T, im *origintest.Image) (seeds []*opened, tables []*seed.Table) {
	t.Helper()
	codec, err := seed.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range im.Image.Layers {
		h, err := seed.ParseHead(codec, im.Blobs[l.Seed.Digest][l.Seed.Head:], l.Seed.Head)
		if err != nil {
			t.Fatal(err)
		}
		seeds, tables = append(seeds, newOpened(*l.Seed)), append(tables, h.Table)
	}
	return seeds, tables
}

// TestIndex has a block in several tables, of which some go: it is found in the others.
func TestIndex(t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 1000)
	_, tables := tablesOf(t, im)
	x := newIndex(1000)
	block := im.Layers[0][5].Cid
	var seeds []*opened
	for range 5 {
		s := newOpened(*im.Image.Layers[0].Seed)
		x.add(s, tables[0])
		seeds = append(seeds, s)
	}
	for i, drop := range []int{2, 0, 4, 1, 3} {
		if got := x.find(block); len(got) != 5-i {
			t.Fatalf("it is found in %d of %d", len(got), 5-i)
		}
		x.drop(seeds[drop])
		for _, f := range x.find(block) {
			if f.opened == seeds[drop] {
				t.Error("it is found in a table that has gone")
			}
		}
	}
	if got := x.find(block); len(got) > 0 || len(x.first)+len(x.more)+len(x.tables)+x.blocks > 0 {
		t.Errorf("of no table, %d places, %d and %d blocks are left", len(got), len(x.first), len(x.more))
	}
}

// TestIndexLimit adds more than there is room for: the table goes that was not used for longest.
func TestIndexLimit(t *testing.T) {
	im := origintest.NewImage(t, 4, 20, 1000)
	seeds, tables := tablesOf(t, im)
	x := newIndex(3*21 + 20)
	for i := range 3 {
		x.add(seeds[i], tables[i])
	}
	x.use(seeds[0])
	x.add(seeds[3], tables[3])
	for i, s := range seeds {
		if here := s.table != nil; here != (i != 1) {
			t.Errorf("table %d is here: %t", i, here)
		}
		if got := x.find(im.Layers[i][3].Cid); (len(got) == 1) != (i != 1) {
			t.Errorf("a block of table %d is found at %d places", i, len(got))
		}
	}
	if x.blocks != 3*21 {
		t.Errorf("%d blocks are counted", x.blocks)
	}
}
