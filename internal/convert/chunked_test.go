package convert_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// readBlob reads a blob by the root in its descriptor.
func readBlob(t *testing.T, node *ipfstest.Memory, desc ocispec.Descriptor) []byte {
	t.Helper()
	root, err := cid.Decode(desc.Annotations[mediatype.AnnotationBlob])
	if err != nil {
		t.Fatalf("%s: %v", desc.Digest, err)
	}
	f, err := ipfs.LoadFile(t.Context(), node, root, desc.Size, ipfs.LayoutBlob)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for i := range f.NumLeaves() {
		data, err := node.Get(t.Context(), f.Leaf(i))
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
	}
	return out.Bytes()
}

// TestChunked has an image whose blobs are on the node by the roots in the manifest, and in the target as they were, and a manifest that is else the
// one that it was; and again with nothing read.
func TestChunked(t *testing.T) {
	tarball := makeTar("hello", "", strings.Repeat("large", 1<<20))
	src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
	im := newImage("amd64").
		layer(src, ocispec.MediaTypeImageLayer, tarball, tarball).
		layer(src, ocispec.MediaTypeImageLayerGzip, gzipped(tarball), tarball).
		layer(src, ocispec.MediaTypeImageLayer, tarball, tarball)
	im.layers[1].Annotations = map[string]string{"kept": "yes"}
	source := im.store(src)
	opts := convert.Options{Source: src, Target: dst, Node: node}
	var first *convert.Report
	for _, reused := range []bool{false, true} {
		clear(src.fetched)
		report, err := convert.Chunked(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]any
		var manifest ocispec.Manifest
		for data, v := range map[string][]any{string(src.blobs[source.Digest]): {&before}, string(dst.blobs[report.Digest]): {&after, &manifest}} {
			for _, to := range v {
				if err := json.Unmarshal([]byte(data), to); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, desc := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
			want := src.blobs[desc.Digest]
			if got := readBlob(t, node, desc); !bytes.Equal(got, want) || digest.FromBytes(got) != desc.Digest {
				t.Errorf("blob %d on the node is another", i)
			}
			if !bytes.Equal(dst.blobs[desc.Digest], want) {
				t.Errorf("blob %d in the target is another", i)
			}
		}
		withoutRoots(after)
		if !reflect.DeepEqual(before, after) {
			t.Errorf("the manifest was\n%v\nand is\n%v", before, after)
		}
		for i, l := range report.Manifests[0].Layers {
			if l.Reused != reused || l.Source != l.Digest || l.Cid != manifest.Layers[i].Annotations[mediatype.AnnotationBlob] {
				t.Errorf("layer %d is reported as %+v", i, l)
			}
		}
		if n := src.fetched[im.layers[0].Digest]; n > 1 {
			t.Errorf("a layer that the image has twice was read %d times", n)
		}
		if first == nil {
			first = report
		} else if first.Digest != report.Digest {
			t.Errorf("the second time makes %s, the first %s", report.Digest, first.Digest)
		}
	}
}

// withoutRoots removes what Chunked adds to a manifest.
func withoutRoots(manifest map[string]any) {
	descs := append([]any{manifest["config"]}, manifest["layers"].([]any)...)
	for _, d := range descs {
		desc := d.(map[string]any)
		annotations := desc["annotations"].(map[string]any)
		maps.DeleteFunc(annotations, func(key string, _ any) bool { return key == mediatype.AnnotationBlob })
		if len(annotations) == 0 {
			delete(desc, "annotations")
		}
	}
}

// TestChunkedRefuses a blob that is not the one of its digest, and tags nothing.
func TestChunkedRefuses(t *testing.T) {
	tarball := makeTar("hello")
	src, dst := newMemory(), newMemory()
	im := newImage("amd64").layer(src, ocispec.MediaTypeImageLayer, tarball, tarball)
	im.store(src)
	src.blobs[im.layers[0].Digest] = makeTar("other")
	if _, err := convert.Chunked(t.Context(), convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory()}); err == nil || dst.tagged.Digest != "" {
		t.Errorf("a layer is another: %v; tagged %q", err, dst.tagged.Digest)
	}
}

// TestChunkedInSpec finds the root that spec/image.md names.
func TestChunkedInSpec(t *testing.T) {
	spec, err := os.ReadFile("../../spec/image.md")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := objectstest.New(t, ipfs.LayoutBlob, []byte(strings.Repeat("hello", 100_000)))
	for _, says := range []string{f.Cid.String(), digest.FromString(strings.Repeat("hello", 100_000)).String()} {
		if !strings.Contains(string(spec), "`"+says+"`") {
			t.Errorf("spec/image.md does not name %s", says)
		}
	}
}
