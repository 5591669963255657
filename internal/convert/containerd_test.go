package convert_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// startContainerd starts a stock containerd, and returns how to reach it.
func startContainerd(t *testing.T) (convert.Access, *client.Client) {
	t.Helper()
	machine := labtest.Machine(t, labtest.Open(t, "convert", 0), "host")
	c, err := machine.StartContainerd(t.Context(), lab.ContainerdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return convert.Access{ContainerdAddress: c.Address, Namespace: "test"}, c.Client
}

func TestContainerd(t *testing.T) {
	access, cl := startContainerd(t)
	ctx := namespaces.WithNamespace(t.Context(), access.Namespace)
	src, node := newMemory(), ipfstest.NewMemory()
	newIndex(t, src, ocispec.MediaTypeImageIndex, "linux/amd64", "linux/arm64")
	platforms, err := convert.ParsePlatforms([]string{"linux/amd64", "linux/arm64"})
	if err != nil {
		t.Fatal(err)
	}

	const source, target = "containerd:example.com/app:1", "containerd:example.com/app:ipcs"
	fillContainerd(ctx, t, cl, src, "example.com/app:1")

	for round := range 2 { // the second moves the tag
		in, err := access.OpenSource(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		out, err := access.OpenTarget(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		report := mustConvert(t, convert.Options{Source: in, Target: out, Node: node, Platforms: platforms[:2-round]})
		closeStore(t, in)
		closeStore(t, out)
		collect(ctx, t, cl)
		checkComplete(ctx, t, cl, "example.com/app:ipcs", report, 2-round)
	}
	left, err := cl.LeasesService().List(ctx)
	if err != nil || len(left) != 0 {
		t.Errorf("leases left: %v, %v", left, err)
	}
}

// fillContainerd stores the image of src as if it had been pulled.
func fillContainerd(ctx context.Context, t *testing.T, cl *client.Client, src *memory, name string) {
	t.Helper()
	ctx, done, err := cl.WithLease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	store := cl.ContentStore()
	for d, data := range src.blobs {
		desc := ocispec.Descriptor{Digest: d, Size: int64(len(data))}
		if err := content.WriteBlob(ctx, store, d.String(), strings.NewReader(string(data)), desc); err != nil {
			t.Fatal(err)
		}
	}
	if err := images.Walk(ctx, images.SetChildrenLabels(store, images.ChildrenHandler(store)), src.top); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.ImageService().Create(ctx, images.Image{Name: name, Target: src.top}); err != nil {
		t.Fatal(err)
	}
	if err := done(ctx); err != nil {
		t.Fatal(err)
	}
}

// collect makes containerd collect what nothing refers to.
func collect(ctx context.Context, t *testing.T, cl *client.Client) {
	t.Helper()
	lease, err := cl.LeasesService().Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.LeasesService().Delete(ctx, lease, leases.SynchronousDelete); err != nil {
		t.Fatal(err)
	}
}

// checkComplete checks that containerd has all of an image.
func checkComplete(ctx context.Context, t *testing.T, cl *client.Client, name string, report *convert.Report, manifests int) {
	t.Helper()
	img, err := cl.ImageService().Get(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if img.Target.Digest != report.Digest || len(report.Manifests) != manifests {
		t.Errorf("%s is %s, want %+v", name, img.Target.Digest, report)
	}
	blobs := 0
	handler := func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		blobs++
		if _, err := cl.ContentStore().Info(ctx, desc.Digest); err != nil {
			return nil, fmt.Errorf("%s: %w", desc.MediaType, err)
		}
		return images.Children(ctx, cl.ContentStore(), desc)
	}
	if err := images.Walk(ctx, images.HandlerFunc(handler), img.Target); err != nil {
		t.Errorf("after garbage collection: %v", err)
	}
	want := manifests * 4 // manifest, config, two layers
	if manifests > 1 {
		want++ // index
	}
	if blobs != want {
		t.Errorf("the image has %d blobs, want %d", blobs, want)
	}
}

func TestContainerdErrors(t *testing.T) {
	access, cl := startContainerd(t)
	ctx := namespaces.WithNamespace(t.Context(), access.Namespace)
	src := newMemory()
	im := newImage("amd64").files(src, "hello")
	im.store(src)
	fillContainerd(ctx, t, cl, src, "example.com/lazy:1")
	// What a lazy snapshotter leaves: the manifest, and not the layers.
	if err := cl.ContentStore().Delete(ctx, im.layers[0].Digest); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ ref, says string }{
		{"containerd:example.com/absent:1", "no image"},
		{"containerd:example.com/lazy:1", "ctr content fetch example.com/lazy:1"},
	} {
		_, err := convert.Image(t.Context(), convert.Options{
			Source: openSource(t, access, c.ref), Target: newMemory(), Node: ipfstest.NewMemory(),
		})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one with %q", c.ref, err, c.says)
		}
	}
	absent := convert.Access{ContainerdAddress: t.TempDir() + "/absent.sock"}
	if _, err := absent.OpenSource(t.Context(), "containerd:example.com/lazy:1"); err == nil || !strings.Contains(err.Error(), "--containerd-address") {
		t.Errorf("error %v, want one that says how to name the socket", err)
	}
}
