package convert_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// TestWithoutRegistry converts images to ipfs:. What the CID leads to is the same image as in
// any target, all of it, and what a pin keeps is enough to prove it and to have the original again.
func TestWithoutRegistry(t *testing.T) {
	profile, err := layer.EncodeProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
		src, elsewhere, node := newMemory(), newMemory(), ipfstest.NewMemory()
		newIndex(t, src, ocispec.MediaTypeImageIndex, platforms...)
		opts := convert.Options{Source: src, Target: elsewhere, Node: node, AllPlatforms: true, Profile: profile}
		want := mustConvert(t, opts)
		target := openTarget(t, convert.Access{}, "ipfs:")
		opts.Target = target
		report := mustConvert(t, opts)
		if report.Digest != want.Digest || report.Target != "ipfs:"+report.Cid || target.String() != report.Target || want.Cid != "" {
			t.Errorf("report %+v, want the image of %+v", report, want)
		}
		pins, err := node.Pins(t.Context(), "ipcs:directory:"+report.Digest.String())
		if err != nil || len(pins) != 1 || pins[0].Root.String() != report.Cid {
			t.Fatalf("pins %v, %v", pins, err)
		}
		checkSame(t, elsewhere, node, pins[0].Root)
		kept := pinned(t, node, pins[0].Root)
		checkKept(t, kept, elsewhere, profile)

		near := ipfstest.NewMemory()
		near.Connect(kept)
		source := openSource(t, convert.Access{}, report.Target)
		verified, err := convert.Verify(t.Context(), convert.Options{Source: source, Node: near})
		if err != nil || len(verified.Manifests) != len(platforms) || verified.Manifests[0].Original == "" {
			t.Errorf("verified: %+v, %v", verified, err)
		}
		back := newMemory()
		if _, err := convert.Restore(t.Context(), convert.Options{Source: openSource(t, convert.Access{}, report.Target), Target: back, Node: near, AllPlatforms: true}); err != nil {
			t.Fatal(err)
		}
		for i, m := range report.Manifests {
			var before, after ocispec.Manifest
			src.read(t, m.Source, &before)
			if len(platforms) == 1 {
				after = manifestOf(t, back)
			} else {
				var index ocispec.Index
				back.read(t, back.tagged.Digest, &index)
				back.read(t, index.Manifests[i].Digest, &after)
			}
			if before.Config.Digest != after.Config.Digest {
				t.Errorf("config %s came back as %s", before.Config.Digest, after.Config.Digest)
			}
		}
	}
}

// checkSame compares what a CID leads to with what another target has.
func checkSame(t *testing.T, elsewhere *memory, node ipfs.Fetcher, root cid.Cid) {
	t.Helper()
	im, err := imagedir.Open(t.Context(), node, root)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := im.Tag("latest"); err != nil || d != elsewhere.tagged.Digest {
		t.Errorf("latest is %s, %v; want %s", d, err, elsewhere.tagged.Digest)
	}
	for d, want := range elsewhere.blobs {
		if got, err := im.Blob(t.Context(), d); err != nil || !bytes.Equal(got, want) {
			t.Errorf("blob %s is %q, %v; want %q", d, got, err, want)
		}
	}
}

// pinned is a node with what a pin keeps, and nothing else.
func pinned(t *testing.T, node ipfs.Getter, root cid.Cid) *ipfstest.Memory {
	t.Helper()
	kept := ipfstest.NewMemory()
	for todo := []cid.Cid{root}; len(todo) > 0; todo = todo[1:] {
		data, err := node.Get(t.Context(), todo[0])
		if err != nil {
			t.Fatal(err)
		}
		b := ipfs.Block{Cid: todo[0], Data: data}
		links, err := ipfs.Links(b)
		if err == nil {
			err = kept.Put(t.Context(), b)
		}
		if err != nil {
			t.Fatal(err)
		}
		todo = append(todo, links...)
	}
	return kept
}

// checkKept finds the hints and the layers of an image.
func checkKept(t *testing.T, kept *ipfstest.Memory, image *memory, profile []byte) {
	t.Helper()
	for d, data := range image.blobs {
		m, err := imagedir.ParseManifest(data)
		if err != nil || m.IsIndex() {
			continue
		}
		var manifest ocispec.Manifest
		image.read(t, d, &manifest)
		for _, l := range manifest.Layers {
			record, err := layer.DecodeImage(blockOf(t, kept, l.Annotations[mediatype.AnnotationImage]))
			if err != nil {
				t.Fatal(err)
			}
			if got := blockOf(t, kept, record.Profile); !bytes.Equal(got, profile) {
				t.Errorf("profile %q", got)
			}
			root, err := cid.Decode(l.Annotations[mediatype.AnnotationRoot])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := layer.Open(t.Context(), kept, root); err != nil {
				t.Errorf("layer %s: %v", root, err)
			}
		}
	}
}

// TestWithoutRegistryFails has a node that fails at each step: nothing is named.
func TestWithoutRegistryFails(t *testing.T) {
	src := newMemory()
	newImage("amd64").files(src, "hello").store(src)
	broken := errors.New("disk on fire")
	for fails := range int64(100) {
		node := ipfstest.NewMemory()
		var n atomic.Int64
		node.SetFault(func(op string, _ cid.Cid) error {
			if n.Add(1) > fails && (op == "put" || op == "pin") {
				return broken
			}
			return nil
		})
		target := openTarget(t, convert.Access{}, "ipfs:")
		report, err := convert.Image(t.Context(), convert.Options{Source: src, Target: target, Node: node})
		if err == nil {
			if fails < 5 || report.Cid == "" {
				t.Errorf("%+v with %d operations", report, fails)
			}
			return
		}
		if !errors.Is(err, broken) || target.String() != "ipfs:" {
			t.Fatalf("%d: %v, %s", fails, err, target)
		}
	}
	t.Error("it never ends")
}

// TestLargeForABlock refuses a config that is no block, and says what to do.
func TestLargeForABlock(t *testing.T) {
	src := newMemory()
	im := newImage("amd64").files(src, "hello")
	im.config["author"] = strings.Repeat("x", ipfs.MaxBlock)
	im.store(src)
	_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: openTarget(t, convert.Access{}, "ipfs:"), Node: ipfstest.NewMemory()})
	if err == nil || !strings.Contains(err.Error(), "write the image to a registry") {
		t.Errorf("error %v", err)
	}
}

// TestIPFSReferences refuses what is no image, and what would name a target.
func TestIPFSReferences(t *testing.T) {
	const directory = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
	for _, ref := range []string{"ipfs:", "ipfs:latest", "ipfs://" + directory, "ipfs:" + strings.ToUpper(directory)} {
		if _, err := (convert.Access{}).OpenSource(t.Context(), ref); !errors.Is(err, convert.ErrReference) {
			t.Errorf("source %q: error %v, want ErrReference", ref, err)
		}
	}
	for _, ref := range []string{"ipfs:" + directory, "ipfs:app", "ipfs:5000/app"} {
		if _, err := (convert.Access{}).OpenTarget(t.Context(), ref); !errors.Is(err, convert.ErrReference) {
			t.Errorf("target %q: error %v, want ErrReference", ref, err)
		}
	}
	if src := openSource(t, convert.Access{}, "ipfs:"+directory); src.String() != "ipfs:"+directory || convert.Same("ipfs:"+directory, "ipfs:") {
		t.Errorf("source %s", src)
	}
	// It is a directory, and no image.
	node := ipfstest.NewMemory()
	empty, err := layer.NewDirectory(nil)
	if err == nil {
		err = node.Put(t.Context(), empty)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = convert.Verify(t.Context(), convert.Options{Source: openSource(t, convert.Access{}, "ipfs:"+directory), Node: node})
	if !errors.Is(err, imagedir.ErrImage) {
		t.Errorf("the empty directory: %v", err)
	}
}

// TestRestoreToIPFS: ordinary layers are not put there.
func TestRestoreToIPFS(t *testing.T) {
	src, node := newMemory(), ipfstest.NewMemory()
	newImage("amd64").files(src, "hello").store(src)
	report := mustConvert(t, convert.Options{Source: src, Target: openTarget(t, convert.Access{}, "ipfs:"), Node: node})
	_, err := convert.Restore(context.Background(), convert.Options{
		Source: openSource(t, convert.Access{}, "ipfs:"+report.Cid), Target: openTarget(t, convert.Access{}, "ipfs:"), Node: node,
	})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	if pins, err := node.Pins(t.Context(), ""); err != nil || slices.ContainsFunc(pins, func(p ipfs.Pin) bool {
		return strings.HasPrefix(p.Name, "ipcs:directory:") && p.Root.String() != report.Cid
	}) {
		t.Errorf("pins %v, %v", pins, err)
	}
}
