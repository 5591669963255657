package convert_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// naming is a target that takes blobs by the digests of their roots.
type naming struct {
	*memory
	named []ocispec.Descriptor
}

func (n *naming) Name(_ context.Context, desc ocispec.Descriptor) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.named = append(n.named, desc)
	n.blobs[desc.Digest] = []byte("known by its name")
	return nil
}

// TestRootDigests has an image whose large layer is named by its root, whose small blobs are what they were, and that only who takes such names is given.
func TestRootDigests(t *testing.T) {
	large, small := makeTar("hello", "", strings.Repeat("large", 1<<20)), makeTar("small")
	src, dst, node := newMemory(), &naming{memory: newMemory()}, ipfstest.NewMemory()
	im := newImage("amd64").layer(src, ocispec.MediaTypeImageLayer, large, large).layer(src, ocispec.MediaTypeImageLayer, small, small)
	im.store(src)
	opts := convert.Options{Source: src, Target: newMemory(), Node: node, RootDigests: true}
	if _, err := convert.Chunked(t.Context(), opts); !errors.Is(err, convert.ErrRootDigests) || len(node.Cids()) > 0 {
		t.Errorf("a target that takes no such digests: %v", err)
	}
	opts.Target = dst
	for _, reused := range []bool{false, true} {
		dst.named = nil
		report, err := convert.Chunked(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		var manifest ocispec.Manifest
		if err := json.Unmarshal(dst.blobs[report.Digest], &manifest); err != nil {
			t.Fatal(err)
		}
		l := manifest.Layers[0]
		if len(dst.named) != 1 || dst.named[0].Digest != l.Digest || l.Size != int64(len(large)) || l.Digest == digest.FromBytes(large) {
			t.Errorf("the large layer is %+v; named were %+v", l, dst.named)
		}
		root, err := cid.Decode(report.Manifests[0].Layers[0].Cid)
		if err != nil {
			t.Fatal(err)
		}
		block, err := node.Get(t.Context(), root)
		if err != nil || digest.FromBytes(block) != l.Digest {
			t.Errorf("its digest is not that of its root: %v", err)
		}
		if _, err := ipfs.LoadFile(t.Context(), node, root, l.Size, ipfs.LayoutBlob); err != nil {
			t.Error(err)
		}
		for _, desc := range []ocispec.Descriptor{manifest.Config, manifest.Layers[1]} {
			if digest.FromBytes(dst.blobs[desc.Digest]) != desc.Digest || len(desc.Annotations) > 0 {
				t.Errorf("a blob of one chunk is %+v", desc)
			}
		}
		if got := report.Manifests[0].Layers[0]; got.Reused != reused || got.Digest != l.Digest {
			t.Errorf("reported is %+v", got)
		}
	}
}
