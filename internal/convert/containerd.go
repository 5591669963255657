package convert

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	_ Source = (*containerdImage)(nil)
	_ Target = (*containerdImage)(nil)
)

const (
	// leaseTime is when containerd drops what an interrupted conversion left.
	leaseTime = 24 * time.Hour
	// containerdRead is how much is asked for in one call.
	containerdRead = 1 << 20
)

// A containerdImage is an image in containerd's image store. As a target it holds a
// lease from Prepare to Close, so that nothing is collected before it is tagged.
type containerdImage struct {
	ref       string
	address   string
	namespace string
	images    images.Store
	content   content.Store
	leases    leases.Manager
	snapshots func(context.Context, ocispec.Descriptor) error // before the image is named
	close     func() error
	lease     string // id; empty before Prepare
}

func (a Access) openContainerd(ref string) (*containerdImage, error) {
	name := strings.TrimPrefix(ref, prefixContainerd)
	if name == "" {
		return nil, fmt.Errorf("%w: %s: want containerd:REF", ErrReference, ref)
	}
	// The client would wait for a socket to appear.
	if _, err := os.Stat(strings.TrimPrefix(a.ContainerdAddress, "unix://")); err != nil {
		return nil, unreachable(a.ContainerdAddress, err)
	}
	cl, err := client.New(a.ContainerdAddress, client.WithDefaultNamespace(a.Namespace))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", a.ContainerdAddress, err)
	}
	return &containerdImage{
		ref: name, address: a.ContainerdAddress, namespace: a.Namespace,
		images: cl.ImageService(), content: cl.ContentStore(), leases: cl.LeasesService(), close: cl.Close,
		snapshots: func(ctx context.Context, desc ocispec.Descriptor) error { return makeSnapshots(ctx, cl, desc) },
	}, nil
}

func (c *containerdImage) String() string { return prefixContainerd + c.ref }

// Origin implements Target.
func (c *containerdImage) Origin() string { return "" }

// context adds what containerd reads from a context.
func (c *containerdImage) context(ctx context.Context) context.Context {
	ctx = namespaces.WithNamespace(ctx, c.namespace)
	if c.lease != "" {
		ctx = leases.WithLease(ctx, c.lease)
	}
	return ctx
}

// Resolve implements Source.
func (c *containerdImage) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	img, err := c.images.Get(c.context(ctx), c.ref)
	if errdefs.IsNotFound(err) {
		return ocispec.Descriptor{}, fmt.Errorf("%w: containerd has no image %q in namespace %q; \"ctr image ls\" lists the full names", errNoImage, c.ref, c.namespace)
	}
	return img.Target, c.explain(err)
}

// Fetch implements Source.
func (c *containerdImage) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	ra, err := c.content.ReaderAt(c.context(ctx), desc)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("containerd does not have it: it was pulled without its content, or for another platform; \"ctr content fetch %s\" gets all of it: %w", c.ref, err)
	} else if err != nil {
		return nil, c.explain(err)
	}
	return struct {
		io.Reader
		io.Closer
	}{bufio.NewReaderSize(content.NewReader(ra), containerdRead), ra}, nil
}

// Prepare implements Target.
func (c *containerdImage) Prepare(ctx context.Context) error {
	lease, err := c.leases.Create(c.context(ctx), leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return c.explain(err)
	}
	c.lease = lease.ID
	return nil
}

// Push implements Target.
func (c *containerdImage) Push(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	ref := "ipcs-convert-" + desc.Digest.String()
	return c.explain(content.WriteBlob(c.context(ctx), c.content, ref, bytes.NewReader(data), desc))
}

// PushStream implements Target.
func (c *containerdImage) PushStream(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	ctx = c.context(ctx)
	ref := "ipcs-convert-" + rand.Text()
	w, err := content.OpenWriter(ctx, c.content, content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, c.explain(err)
	}
	sum := newSummer(w)
	if err := write(sum); err != nil {
		return ocispec.Descriptor{}, errors.Join(err, w.Close(), c.content.Abort(context.WithoutCancel(ctx), ref))
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: sum.digest(), Size: sum.size}
	err = w.Commit(ctx, desc.Size, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		err = nil
	}
	return desc, c.explain(errors.Join(err, w.Close()))
}

// Tag implements Target.
func (c *containerdImage) Tag(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	if err := c.Push(ctx, desc, data); err != nil {
		return err
	}
	ctx = c.context(ctx)
	// Manifests keep their children with labels, which the collector follows.
	label := images.SetChildrenMappedLabels(c.content, images.ChildrenHandler(c.content), images.ChildGCLabels)
	if err := images.Walk(ctx, label, desc); err != nil {
		return fmt.Errorf("label what the image refers to: %w", err)
	}
	// As with a pull, the name comes last; until then the lease keeps all.
	if err := c.snapshots(ctx, desc); err != nil {
		return c.explain(err)
	}
	img := images.Image{Name: c.ref, Target: desc}
	_, err := c.images.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		_, err = c.images.Update(ctx, img, "target")
	}
	return c.explain(err)
}

// Close ends the lease.
func (c *containerdImage) Close(ctx context.Context) error {
	var err error
	if c.lease != "" {
		err = c.leases.Delete(c.context(ctx), leases.Lease{ID: c.lease})
	}
	return errors.Join(err, c.close())
}

// explain says what to do when containerd cannot be reached.
func (c *containerdImage) explain(err error) error {
	if errdefs.IsUnavailable(err) {
		return unreachable(c.address, err)
	}
	return err
}

func unreachable(address string, err error) error {
	return fmt.Errorf("containerd does not answer at %s; is it running, and may you use its socket (--containerd-address)? %w", address, err)
}
