package convert

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

const (
	snapshotterName = "ipcs"
	// snapshotterFilter finds the snapshotter among containerd's plugins.
	snapshotterFilter = "type==io.containerd.snapshotter.v1,id==" + snapshotterName
)

// makeSnapshots makes the snapshots of an ipcs image for this host's platform, as a pull
// does, when containerd has the snapshotter: it lets nobody make them later but by a
// pull. They hold no content. An ordinary image is unpacked by whoever runs it.
func makeSnapshots(ctx context.Context, cl *client.Client, desc ocispec.Descriptor) error {
	if ipcs, err := hasIpcs(ctx, cl.ContentStore(), desc); err != nil || !ipcs {
		return err
	}
	found, err := cl.IntrospectionService().Plugins(ctx, snapshotterFilter)
	if err != nil || len(found.Plugins) == 0 {
		return err
	}
	unpacker, err := unpack.NewUnpacker(ctx, cl.ContentStore(), unpack.WithUnpackPlatform(unpack.Platform{
		Platform:       platforms.Only(platforms.DefaultSpec()),
		SnapshotterKey: snapshotterName,
		Snapshotter:    cl.SnapshotService(snapshotterName),
		Applier:        cl.DiffService(),
	}))
	if err != nil {
		return err
	}
	err = images.Dispatch(ctx, unpacker.Unpack(images.ChildrenHandler(cl.ContentStore())), nil, desc)
	if _, werr := unpacker.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("snapshotter %s could not take the image (convert it to a registry and pull it from there, or see that the snapshotter's node has it, and convert again): %w", snapshotterName, err)
	}
	return nil
}

// hasIpcs reports whether an image has any ipcs layer.
func hasIpcs(ctx context.Context, store content.Provider, desc ocispec.Descriptor) (bool, error) {
	found := false
	err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		found = found || desc.MediaType == mediatype.Layer
		return images.Children(ctx, store, desc)
	}), desc)
	return found, err
}
