package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/mediatype"
)

// imageHelp is what IMAGE may be.
const imageHelp = `IMAGE is a name that containerd has ("ctr image ls"), or the first digits of the image's chainID,
or of the digest of its topmost ipcs layer.`

// imageDigits is an IMAGE that is no name.
var imageDigits = regexp.MustCompile(`^(sha256:)?[0-9a-f]*$`)

// imageFlags say where the name of an image is looked up.
type imageFlags struct{ namespace string }

func (f *imageFlags) register(cmd *cobra.Command) {
	def := "default"
	if env := os.Getenv("CONTAINERD_NAMESPACE"); env != "" {
		def = env
	}
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", def, "containerd's `namespace` of IMAGE; Kubernetes has k8s.io")
}

// chainOf returns what the daemon knows an image by, given its IMAGE.
func (f *imageFlags) chainOf(ctx context.Context, cfg config, image string) (string, error) {
	if imageDigits.MatchString(image) {
		return image, nil
	}
	conn, err := dialContainerd(cfg.Containerd.Address)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, f.namespace), readyTimeout)
	defer cancel()
	chain, err := chainOf(ctx, conn, image)
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("%w: pull it first; \"ctr --namespace %s image ls\" lists the full names, --namespace names another namespace", err, f.namespace)
	} else if errdefs.IsUnavailable(err) {
		err = fmt.Errorf("%w; set containerd.address to its socket, or give the digits of a chainID (\"profile list\")", err)
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return "", fmt.Errorf("look up image %q in containerd: %w", image, err)
	}
	return chain.String(), nil
}

// chainOf returns the chainID of the topmost ipcs layer of an image that containerd has.
func chainOf(ctx context.Context, conn *grpc.ClientConn, name string) (digest.Digest, error) {
	resp, err := imagesapi.NewImagesClient(conn).Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return "", errgrpc.ToNative(err)
	}
	t := resp.Image.Target
	target := ocispec.Descriptor{MediaType: t.MediaType, Digest: digest.Digest(t.Digest), Size: t.Size}
	store := contentproxy.NewContentStore(conn)
	m, err := images.Manifest(ctx, store, target, platforms.Default())
	if err != nil {
		return "", err
	}
	diffIDs, err := images.RootFS(ctx, store, m.Config)
	if err != nil {
		return "", err
	}
	for n := min(len(m.Layers), len(diffIDs)); n > 0; n-- {
		// BuildKit leaves out the annotations.
		if l := m.Layers[n-1]; l.MediaType == mediatype.Layer && l.Annotations[mediatype.AnnotationKeep] != "true" {
			return identity.ChainID(diffIDs[:n]), nil
		}
	}
	return "", errors.New("it has no ipcs layer: it has a profile only once it is converted")
}
