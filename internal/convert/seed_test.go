package convert_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// seeded is an image with seeds, read as whoever has nothing but its registry.
type seeded struct {
	manifest ocispec.Manifest
	record   *layer.Image
	seeds    []openedSeed // of each layer, bottom first
}

type openedSeed struct {
	blob []byte
	*seed.Head
}

// openSeeds goes from the tag to the seeds.
func openSeeds(t *testing.T, dst *memory) *seeded {
	t.Helper()
	var index ocispec.Index
	dst.read(t, dst.tagged.Digest, &index)
	if len(index.Manifests) != 2 || index.Manifests[1].ArtifactType != mediatype.Seeds || index.Manifests[1].Platform.OS != "unknown" {
		t.Fatalf("the index has %+v", index.Manifests)
	}
	var s seeded
	var beside ocispec.Manifest
	dst.read(t, index.Manifests[0].Digest, &s.manifest)
	dst.read(t, index.Manifests[1].Digest, &beside)
	if beside.Subject.Digest != index.Manifests[0].Digest || index.Manifests[1].Annotations[mediatype.AnnotationSeedsOf] != string(beside.Subject.Digest) {
		t.Errorf("the seeds are of %+v", beside.Subject)
	}
	record := beside.Layers[0]
	if c, err := mediatype.BlobCid(record.Digest); err != nil || c.String() != s.manifest.Layers[0].Annotations[mediatype.AnnotationImage] || record.MediaType != mediatype.Record {
		t.Fatalf("the first blob beside the image is %+v", record)
	}
	var err error
	if s.record, err = layer.DecodeImage(dst.blobs[record.Digest]); err != nil {
		t.Fatal(err)
	}
	codec, err := seed.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]ocispec.Descriptor{}
	for _, l := range beside.Layers {
		listed[l.Annotations[mediatype.AnnotationSeedLayer]] = l
	}
	for _, l := range s.record.Layers {
		blob, desc := dst.blobs[l.Seed.Digest], listed[string(l.Digest)]
		if desc.Digest != l.Seed.Digest || desc.Size != l.Seed.Size || int64(len(blob)) != l.Seed.Size || desc.MediaType != mediatype.Seed {
			t.Fatalf("seed %+v is listed as %+v and has %d bytes", l.Seed, desc, len(blob))
		}
		head, err := seed.ParseHead(codec, blob[l.Seed.Head:], l.Seed.Head)
		if err != nil {
			t.Fatal(err)
		}
		s.seeds = append(s.seeds, openedSeed{blob, head})
	}
	return &s
}

// places returns where a block may be.
func (o openedSeed) places(c cid.Cid) (places []seed.Place) {
	prefix, _ := seed.Prefix(c)
	for number, have := range o.Table.Prefixes() {
		if p, ok := o.Table.At(number, c); have == prefix && ok {
			places = append(places, p)
		}
	}
	return places
}

// find returns in which seeds a block is.
func (s *seeded) find(t *testing.T, c cid.Cid, want []byte) (in []int) {
	t.Helper()
	codec, err := seed.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range s.seeds {
		for _, p := range o.places(c) {
			f := o.Table.Frames[p.Frame]
			data, err := o.Table.Decompress(codec, p.Frame, o.blob[f.Off:f.Off+int64(f.Len)])
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(data[p.From:p.To], want) {
				in = append(in, i)
			}
		}
	}
	return in
}

// TestSeedsOfAnImage finds every block of every layer in one seed: that of the layer, or of one below.
func TestSeedsOfAnImage(t *testing.T) {
	src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
	large := strings.Repeat("large", 1<<20)
	im := newImage("amd64").files(src, "in both", large, "only below", "").files(src, "in both", "only above", large[1:])
	im.layers, im.diffIDs = append(im.layers, im.layers[0]), append(im.diffIDs, im.diffIDs[0])
	im.store(src)
	profile := profileOf(t, "only below", "in both", "nowhere")
	report := mustConvert(t, convert.Options{Source: src, Target: dst, Node: node, Profile: profile, Seeds: true})
	s := openSeeds(t, dst)
	if s.record.Origin != "registry.example.com/memory" || s.manifest.Layers[0].Annotations[mediatype.AnnotationOrigin] != s.record.Origin {
		t.Errorf("the origin is %q", s.record.Origin)
	}
	if s.record.Layers[0].Seed.Digest != s.record.Layers[2].Seed.Digest {
		t.Error("a layer that the image has twice has two seeds")
	}
	s.seeds = s.seeds[:2]
	checkSeeds(t, s, node)
	for i, l := range report.Manifests[0].Layers {
		if l.Seed != s.record.Layers[i].Seed.Digest || l.SeedBytes != s.record.Layers[i].Seed.Size {
			t.Errorf("layer %d is reported as %+v", i, l)
		}
	}
	// What the profile has comes first, in its order.
	for i, text := range []string{"only below", "in both"} {
		if places := s.seeds[0].places(rawCid(t, text)); len(places) != 1 || places[0].Frame != 0 || places[0].From != i*len("only below") {
			t.Errorf("%q is at %+v", text, places)
		}
	}
	checkAgain(t, dst, node)
}

// checkSeeds finds all blocks of the layers.
func checkSeeds(t *testing.T, s *seeded, node ipfs.Getter) {
	t.Helper()
	for i, l := range s.record.Layers[:len(s.seeds)] {
		root, err := mediatype.RootCid(l.Digest)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[cid.Cid]bool{}
		for todo := []cid.Cid{root}; len(todo) > 0; todo = todo[1:] {
			if seen[todo[0]] {
				continue
			}
			seen[todo[0]] = true
			data, err := node.Get(t.Context(), todo[0])
			if err != nil {
				t.Fatal(err)
			}
			if in := s.find(t, todo[0], data); len(in) != 1 || in[0] > i {
				t.Errorf("block %s of layer %d is in seeds %v", todo[0], i, in)
			}
			links, err := ipfs.Links(ipfs.Block{Cid: todo[0], Data: data})
			if err != nil {
				t.Fatal(err)
			}
			todo = append(todo, links...)
		}
		if mount := s.seeds[i].Mount; mount[0].Cid != root || len(mount) != 2 {
			t.Errorf("layer %d is mounted by %d blocks", i, len(mount))
		}
	}
}

// checkAgain makes the image an ordinary one, and verifies it: seeds are no image.
func checkAgain(t *testing.T, image *memory, node convert.Node) {
	t.Helper()
	image.top = image.tagged
	if _, err := convert.Verify(t.Context(), convert.Options{Source: image, Node: node}); err != nil {
		t.Error(err)
	}
	again := newMemory()
	if _, err := convert.Restore(t.Context(), convert.Options{Source: image, Target: again, Node: node, Compression: convert.None}); err != nil {
		t.Error(err)
	}
	var manifest ocispec.Manifest
	if again.read(t, again.tagged.Digest, &manifest); len(manifest.Layers) != 3 {
		t.Errorf("%d layers", len(manifest.Layers))
	}
}

func rawCid(t *testing.T, text string) cid.Cid {
	t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b.Cid
}

// profileOf is the profile of files with these contents.
func profileOf(t *testing.T, contents ...string) []byte {
	t.Helper()
	var files []cid.Cid
	for _, text := range contents {
		files = append(files, rawCid(t, text))
	}
	profile, err := layer.EncodeProfile(files)
	if err != nil {
		t.Fatal(err)
	}
	return profile
}
