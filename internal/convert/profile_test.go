package convert_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestProfile puts a profile into the image, and a word on filling: no layer changes.
func TestProfile(t *testing.T) {
	profile, err := layer.EncodeProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	src, plainTarget, dst, node := newMemory(), newMemory(), newMemory(), ipfstest.NewMemory()
	tarball := makeTar("hello")
	newImage("amd64").layer(src, ocispec.MediaTypeImageLayer, plain(tarball), tarball).store(src)
	without := mustConvert(t, convert.Options{Source: src, Target: plainTarget, Node: node})
	with := mustConvert(t, convert.Options{Source: src, Target: dst, Node: node, Profile: profile, Fill: "false"})
	if !slices.Equal(layerDigests(without), layerDigests(with)) {
		t.Error("the layers are others")
	}
	annotations := manifestOf(t, dst).Layers[0].Annotations
	if annotations[mediatype.AnnotationFill] != "false" {
		t.Errorf("annotations %v", annotations)
	}
	record, err := layer.DecodeImage(blockOf(t, node, annotations[mediatype.AnnotationImage]))
	if err != nil {
		t.Fatal(err)
	}
	if got := blockOf(t, node, record.Profile); !bytes.Equal(got, profile) {
		t.Errorf("profile %q", got)
	}
	pins, err := node.Pins(t.Context(), "ipcs:profile:"+with.Digest.String())
	if err != nil || len(pins) != 1 || pins[0].Root.String() != record.Profile {
		t.Errorf("pins %v, %v", pins, err)
	}
}

func layerDigests(r *convert.Report) (all []digest.Digest) {
	for _, l := range r.Manifests[0].Layers {
		all = append(all, l.Digest)
	}
	return all
}

func blockOf(t *testing.T, node ipfs.Getter, name string) []byte {
	t.Helper()
	c, err := cid.Decode(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := node.Get(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
