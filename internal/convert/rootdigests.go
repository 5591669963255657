package convert

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrRootDigests says that a target takes no blobs whose digest is not that of their bytes.
var ErrRootDigests = errors.New("digests of roots are for containerd's image store on the content store of ipcs")

// A namer is a target that takes blobs by the digests of their roots, without their bytes.
type namer interface {
	Name(ctx context.Context, desc ocispec.Descriptor) error
}

func namerOf(target Target) (namer, error) {
	n, ok := target.(namer)
	if !ok {
		return nil, fmt.Errorf("%w: registries and folders refuse a blob whose digest is not that of its bytes; pass containerd:REF as the target, not %s", ErrRootDigests, target)
	}
	return n, nil
}

// digestOfRoot is the digest by which a blob with this root is named: the hash of the root. That of a blob of one chunk is the hash of its bytes.
func digestOfRoot(root string) (digest.Digest, error) {
	c, err := cid.Decode(root)
	if err != nil {
		return "", err
	}
	hash := c.Hash()
	return digest.NewDigestFromBytes(digest.SHA256, hash[len(hash)-digest.SHA256.Size():]), nil
}

// putNamed puts a layer on the node, and its name into the target.
func (c *chunker) putNamed(ctx context.Context, desc ocispec.Descriptor, progress LayerProgress, report *LayerReport) error {
	root, err := c.reuse(ctx, desc)
	if err != nil {
		return err
	}
	if report.Reused = root.Defined(); !report.Reused {
		report.Bytes = desc.Size
		if root, err = c.chunk(ctx, desc, progress, io.Discard); err != nil {
			return err
		}
	}
	report.Cid = root.String()
	if report.Digest, err = digestOfRoot(report.Cid); err != nil {
		return err
	}
	return c.name(ctx, desc, root)
}

// name puts the name of a blob that is on the node into the target: one of one chunk is there as any other.
func (c *chunker) name(ctx context.Context, desc ocispec.Descriptor, root cid.Cid) error {
	d, err := digestOfRoot(root.String())
	if err != nil {
		return err
	}
	named := ocispec.Descriptor{MediaType: desc.MediaType, Digest: d, Size: desc.Size}
	if root.Type() == cid.DagProtobuf {
		return c.namer.Name(ctx, named)
	}
	data, err := c.node.Get(ctx, root)
	if err != nil {
		return err
	}
	return c.dst.Push(ctx, named, data)
}

// Name has containerd know a blob by a digest that its content store resolves. Nobody writes its bytes.
func (c *containerdImage) Name(ctx context.Context, desc ocispec.Descriptor) error {
	ctx = c.context(ctx)
	ref := "ipcs-convert-" + desc.Digest.String()
	w, err := content.OpenWriter(ctx, c.content, content.WithRef(ref), content.WithDescriptor(desc))
	if err == nil {
		err = errors.Join(w.Commit(ctx, desc.Size, desc.Digest), w.Close())
		if err != nil && !errdefs.IsAlreadyExists(err) {
			err = errors.Join(fmt.Errorf("%w: containerd's content store does not resolve %s; see the README, \"Ordinary images: the content store\": %w", ErrRootDigests, desc.Digest, err),
				c.content.Abort(context.WithoutCancel(ctx), ref))
		}
	}
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return c.explain(err)
}
