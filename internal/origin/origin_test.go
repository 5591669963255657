package origin_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// newOrigin returns an origin that knows an image, which the places have.
func newOrigin(t *testing.T, im *origintest.Image, places ...*origintest.Place) *origin.Origin {
	t.Helper()
	byName := map[string]*origintest.Place{}
	var names []string
	for _, p := range places {
		byName[p.Name], names = p, append(names, p.Name)
	}
	o, err := origin.New(origin.Options{Repository: func(name string, _ bool) (origin.Place, error) {
		if p := byName[name]; p != nil {
			return p, nil
		}
		return nil, errors.New("no such place")
	}})
	if err != nil {
		t.Fatal(err)
	}
	o.Located(im.Record, append([]string{"", "nowhere"}, names...)...)
	return o
}

// fetchAll fetches blocks, and wants each of them once.
func fetchAll(t *testing.T, src ipfs.Fetcher, list []ipfs.Block) {
	t.Helper()
	fetchWith(t.Context(), t, src, list)
}

func fetchWith(ctx context.Context, t *testing.T, src ipfs.Fetcher, list []ipfs.Block) {
	t.Helper()
	want := map[cid.Cid][]byte{}
	for _, b := range list {
		want[b.Cid] = b.Data
	}
	err := src.Fetch(ctx, cids(list), func(b ipfs.Block) error {
		if data, ok := want[b.Cid]; !ok || !bytes.Equal(data, b.Data) {
			t.Errorf("block %s comes twice, or is another", b.Cid)
		}
		delete(want, b.Cid)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%d of %d blocks are missing: %v", len(want), len(list), err)
	}
}

func cids(list []ipfs.Block) (out []cid.Cid) {
	for _, b := range list {
		out = append(out, b.Cid)
	}
	return out
}

// TestOrigin has all of an image from one place, and counts the requests.
func TestOrigin(t *testing.T) {
	im := origintest.NewImage(t, 3, 60, 40<<10)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	o := newOrigin(t, im, place)
	record, err := o.Get(t.Context(), im.Record)
	if err != nil || !bytes.Contains(record, []byte(`"layers"`)) {
		t.Fatalf("the record is %.80q, %v", record, err)
	}
	place.Requests()
	o.Recorded(im.Record, im.Image)
	first := im.Layers[0]
	fetchAll(t, o, first[1:2])
	if r := place.Requests(); len(r) != 4 { // three heads, one frame
		t.Errorf("for one block of three layers there are %d requests: %v", len(r), r)
	}
	fetchAll(t, o, first[2:4]) // in the same frame
	fetchAll(t, o, first[:1])  // the root, in the head
	if r := place.Requests(); len(r) > 0 {
		t.Errorf("what lies beside what came is asked for: %v", r)
	}
	for _, l := range im.Layers {
		fetchAll(t, o, l)
	}
	if r := place.Requests(); len(r) > 4 { // the first layer has a frame already
		t.Errorf("for three layers of a MiB there are %d requests: %v", len(r), r)
	}
	b, err := ipfs.NewBlock(cid.Raw, []byte("nowhere"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Get(t.Context(), b.Cid); !errors.Is(err, ipfs.ErrNotFound) || !errors.Is(err, origin.ErrNone) {
		t.Errorf("a block of no image: %v", err)
	}
	if r := place.Requests(); len(r) > 0 {
		t.Errorf("a block of no image is asked for: %v", r)
	}
}

// TestBadPlaces has the first place fail in every way: the second has all, and nothing wrong is delivered.
func TestBadPlaces(t *testing.T) {
	wrong := func(_ origintest.Request, data []byte) ([]byte, error) {
		for i := range data {
			data[i] ^= 1
		}
		return data, nil
	}
	body := func(change func(origintest.Request, []byte) ([]byte, error)) func(origintest.Request, []byte) ([]byte, error) {
		return func(r origintest.Request, data []byte) ([]byte, error) {
			if r.Off == 0 && r.N > 0 { // not the head
				return change(r, data)
			}
			return data, nil
		}
	}
	cut := func(_ origintest.Request, data []byte) ([]byte, error) { return data[:len(data)/2], nil }
	for name, change := range map[string]func(origintest.Request, []byte) ([]byte, error){
		"missing":      func(origintest.Request, []byte) ([]byte, error) { return nil, origintest.ErrPlace },
		"wrong":        wrong,
		"cut":          cut,
		"wrong frames": body(wrong),
		"frames cut":   body(cut),
		"nothing":      func(origintest.Request, []byte) ([]byte, error) { return nil, nil },
		"other blob": body(func(_ origintest.Request, data []byte) ([]byte, error) {
			return bytes.Repeat([]byte{7}, len(data)), nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			im := origintest.NewImage(t, 1, 60, 40<<10)
			bad := &origintest.Place{Name: "bad", Blobs: im.Blobs}
			good := &origintest.Place{Name: "good", Blobs: im.Blobs}
			bad.Change(change)
			o := newOrigin(t, im, bad, good)
			if _, err := o.Get(t.Context(), im.Record); err != nil {
				t.Fatal(err)
			}
			o.Recorded(im.Record, im.Image)
			fetchAll(t, o, im.Layers[0])
			// Alone, it fails, and says why; and when it is mended nothing of it is left.
			alone := newOrigin(t, im, bad)
			alone.Recorded(im.Record, im.Image)
			err := alone.Fetch(t.Context(), cids(im.Layers[0]), func(b ipfs.Block) error { return b.Check() })
			if !errors.Is(err, ipfs.ErrNotFound) || errors.Is(err, origin.ErrNone) {
				t.Errorf("a bad place alone: %v", err)
			}
		})
	}
}

// TestMended has a place fail, and then work: what was wrong is not kept.
func TestMended(t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 10<<10)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	o := newOrigin(t, im, place)
	o.Recorded(im.Record, im.Image)
	fetchAll(t, o, im.Layers[0][:1])
	place.Change(func(_ origintest.Request, data []byte) ([]byte, error) { return make([]byte, len(data)), nil })
	if err := o.Fetch(t.Context(), cids(im.Layers[0]), func(ipfs.Block) error { return nil }); err == nil {
		t.Error("what is wrong is taken")
	}
	place.Change(nil)
	time.Sleep(1100 * time.Millisecond) // until the seed is tried again
	fetchAll(t, o, im.Layers[0])
}

// TestOtherImages has images name the seed of another, with no place for it, with places that have something else, and with
// another head: that image is read as before.
func TestOtherImages(t *testing.T) {
	im := origintest.NewImage(t, 1, 60, 40<<10)
	good := &origintest.Place{Name: "good", Blobs: im.Blobs}
	bad := &origintest.Place{Name: "bad", Blobs: im.Blobs}
	bad.Change(func(_ origintest.Request, data []byte) ([]byte, error) { return make([]byte, len(data)), nil })
	o := newOrigin(t, im, good, bad)
	o.Recorded(im.Record, im.Image)
	for i, l := range im.Layers[0][:3] {
		other, seed := *im.Image, *im.Image.Layers[0].Seed
		seed.Head -= int64(i)
		other.Layers = []layer.ImageLayer{{Digest: im.Image.Layers[0].Digest, Block: im.Image.Layers[0].Block, Seed: &seed}}
		o.Located(l.Cid, []string{"", "bad", "bad"}[i])
		o.Recorded(l.Cid, &other)
	}
	fetchAll(t, o, im.Layers[0])
}

// TestFetchEnds has whoever asks refuse a block, and go: the fetch ends with that.
func TestFetchEnds(t *testing.T) {
	im := origintest.NewImage(t, 1, 60, 40<<10)
	o := newOrigin(t, im, &origintest.Place{Name: "place", Blobs: im.Blobs})
	o.Recorded(im.Record, im.Image)
	failed, n := errors.New("failed"), 0
	err := o.Fetch(t.Context(), cids(im.Layers[0]), func(ipfs.Block) error {
		n++
		return failed
	})
	if !errors.Is(err, failed) || n != 1 {
		t.Errorf("after %d blocks: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Fetch(ctx, cids(im.Layers[0]), func(ipfs.Block) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestTwoVersions has a block in seeds of two images: what is wanted together is read from one.
func TestTwoVersions(t *testing.T) {
	im := origintest.NewImage(t, 1, 60, 40<<10)
	other := origintest.NewImage(t, 1, 61, 40<<10)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	for d, b := range other.Blobs {
		place.Blobs[d] = b
	}
	o := newOrigin(t, im, place)
	o.Recorded(im.Record, im.Image)
	fetchAll(t, o, im.Layers[0][:1]) // in the head
	o.Located(other.Record, "place")
	o.Recorded(other.Record, other.Image)
	fetchAll(t, o, other.Layers[0][61:])
	place.Requests()
	fetchAll(t, o, slices.Concat(im.Layers[0], other.Layers[0]))
	for _, r := range place.Requests() {
		if r.Digest != other.Image.Layers[0].Seed.Digest {
			t.Errorf("one of the seeds has all, and the other is asked for %+v", r)
		}
	}
}

// TestLatestFirst has two images: for what is in that told of last, the other's tables are not read.
func TestLatestFirst(t *testing.T) {
	old, im := origintest.NewImage(t, 3, 10, 1000), origintest.NewImage(t, 2, 10, 1000)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	for d, b := range old.Blobs {
		place.Blobs[d] = b
	}
	o := newOrigin(t, old, place)
	o.Recorded(old.Record, old.Image)
	o.Located(im.Record, "place")
	o.Recorded(im.Record, im.Image)
	fetchAll(t, o, im.Layers[1])
	if r := place.Requests(); len(r) != 3 { // two heads; one frame
		t.Errorf("%d requests: %v", len(r), r)
	}
	fetchAll(t, o, old.Layers[2])
	if r := place.Requests(); len(r) != 4 {
		t.Errorf("for the other image %d requests: %v", len(r), r)
	}
}

// TestClaimed has an image say where it is: it is asked there last, and not at all where whoever pulled it says the same.
func TestClaimed(t *testing.T) {
	im := origintest.NewImage(t, 1, 10, 1000)
	asked := map[string]*origintest.Place{}
	o, err := origin.New(origin.Options{Repository: func(name string, claimed bool) (origin.Place, error) {
		p := &origintest.Place{Name: name, Blobs: im.Blobs}
		if claimed {
			name += " as claimed"
		}
		if asked[name] != nil {
			t.Errorf("%s is made twice", name)
		}
		asked[name] = p
		return p, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	o.Claimed(im.Record, "one", "other")
	o.Recorded(im.Record, im.Image)
	fetchAll(t, o, im.Layers[0][:1])
	o.Located(im.Record, "other", "last")
	fetchAll(t, o, im.Layers[0])
	o.Located(im.Record, "one")
	o.Claimed(im.Record, "last")
	for name, want := range map[string]int{"one as claimed": 1, "other as claimed": 0, "other": 1, "last": 0} {
		if asked[name] == nil || len(asked[name].Requests()) != want {
			t.Errorf("%s is not asked %d times", name, want)
		}
	}
}

// TestSeedsOfOthers has an image name the seed of another, which has what its own have not got: its table is read when it is needed.
func TestSeedsOfOthers(t *testing.T) {
	im, old := origintest.NewImage(t, 1, 20, 1000), origintest.NewImage(t, 2, 20, 1000)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	for d, b := range old.Blobs {
		place.Blobs[d] = b
	}
	o := newOrigin(t, im, place)
	both := *im.Image
	for _, l := range old.Image.Layers {
		both.Seeds = append(both.Seeds, *l.Seed)
	}
	o.Recorded(im.Record, &both)
	fetchAll(t, o, im.Layers[0])
	if r := place.Requests(); len(r) != 2 {
		t.Errorf("for what is in its own seed there are %d requests: %v", len(r), r)
	}
	fetchAll(t, o, slices.Concat(old.Layers...))
}

// TestChangedFrame has the first place change a byte of a frame that decompresses all the same: what is made of it is not kept, and the
// second place's is taken.
func TestChangedFrame(t *testing.T) {
	im := origintest.NewImage(t, 1, 20, 10<<10)
	bad, good := &origintest.Place{Name: "bad", Blobs: im.Blobs}, &origintest.Place{Name: "good", Blobs: im.Blobs}
	bad.Change(func(r origintest.Request, data []byte) ([]byte, error) {
		if r.Off == 0 && r.N > 0 { // not the head
			data[len(data)/2] ^= 1 // of bytes that do not compress
		}
		return data, nil
	})
	o := newOrigin(t, im, bad, good)
	o.Recorded(im.Record, im.Image)
	fetchAll(t, o, im.Layers[0])
	fetchAll(t, o, im.Layers[0])
}

// TestPlaceThatFails has the first of two places fail: it is asked last for a while, and not before each request to the other.
func TestPlaceThatFails(t *testing.T) {
	im := origintest.NewImage(t, 1, 200, 60<<10)
	away := &origintest.Place{Name: "away", Blobs: im.Blobs}
	away.Change(func(origintest.Request, []byte) ([]byte, error) { return nil, origintest.ErrPlace })
	good := &origintest.Place{Name: "good", Blobs: im.Blobs}
	o := newOrigin(t, im, away, good)
	o.Recorded(im.Record, im.Image)
	for _, b := range im.Layers[0] {
		fetchAll(t, o, []ipfs.Block{b})
	}
	if n := len(away.Requests()); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}
