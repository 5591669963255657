//go:build linux

package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestSourcesOf reads where a manifest was pulled from.
func TestSourcesOf(t *testing.T) {
	got := sourcesOf(content.Info{Labels: map[string]string{
		"containerd.io/distribution.source.registry.example.com": "team/app,copies/app",
		"containerd.io/distribution.source.127.0.0.1:5000":       "app",
		"containerd.io/distribution.source.":                     "nowhere",
		"containerd.io/gc.ref.content.l.0":                       "sha256:1",
	}})
	want := []string{"127.0.0.1:5000/app", "registry.example.com/team/app", "registry.example.com/copies/app"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestWithPort has labels that leave out the port of the registry that an image was pulled from, and references that are made up.
func TestWithPort(t *testing.T) {
	for _, c := range []struct {
		ref        string
		list, want []string
	}{
		{"registry.example.com:5000/team/app:1", []string{"registry.example.com/team/app", "other.example.com/app"},
			[]string{"registry.example.com:5000/team/app", "other.example.com/app"}},
		{"registry.example.com/app@sha256:1", []string{"a/b", "registry.example.com/app"}, []string{"registry.example.com/app", "a/b"}},
		{"[::1]:5000/app:1", []string{"::1/app"}, []string{"[::1]:5000/app"}},
		{"10.0.0.1:5000/app:1", []string{"10.0.0.1/copy"}, []string{"10.0.0.1/copy"}},
		{"10.0.0.1:5000/app:1", []string{"10.0.0.1/app", "b/app", "10.0.0.1/app"}, []string{"10.0.0.1:5000/app", "b/app"}},
		{"user@10.0.0.1:5000/app:1", []string{"10.0.0.1/app"}, []string{"10.0.0.1:5000/app"}},
		{"", []string{"10.0.0.1/app"}, []string{"10.0.0.1/app"}},
		{"nothing", []string{"10.0.0.1/app"}, []string{"10.0.0.1/app"}},
		{"127.0.0.1:8080/app:1", []string{"registry.example.com/app"}, []string{"registry.example.com/app"}},
	} {
		if got := withPort(pulledFrom(c.ref), c.list); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.ref, got, c.want)
		}
	}
}

// manifests is a content store of manifests.
type manifests [][]byte

func (m manifests) Walk(ctx context.Context, fn content.WalkFunc, _ ...string) error {
	if _, err := namespaces.NamespaceRequired(ctx); err != nil {
		return err
	}
	for _, b := range m {
		if err := fn(content.Info{Digest: digest.FromBytes(b), Size: int64(len(b))}); err != nil {
			return err
		}
	}
	return nil
}

func (m manifests) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	for _, b := range m {
		if digest.FromBytes(b) == desc.Digest {
			return readerAt{bytes.NewReader(b)}, nil
		}
	}
	return nil, errors.New("there is none")
}

type readerAt struct{ *bytes.Reader }

func (readerAt) Close() error { return nil }

// TestProvenRef has an image say itself what it is pulled of.
func TestProvenRef(t *testing.T) {
	plain := []byte(`{"layers":[{"annotations":{"containerd.io/snapshot/other":"x"}}]}`)
	says := []byte(`{"layers":[{},{"annotations":{"containerd.io/snapshot/cri.image-ref":"127.0.0.1:2375/app:1"}}]}`)
	for name, c := range map[string]struct {
		manifests Manifests
		want      string
	}{
		"containerd says it":     {manifests{plain}, "127.0.0.1:5000/app"},
		"the image says it":      {manifests{says}, ""},
		"one of two says it":     {manifests{plain, says}, ""},
		"there is no manifest":   {manifests{}, ""},
		"there is no store":      {nil, ""},
		"what is there is none":  {manifests{[]byte("no JSON")}, ""},
		"it is larger than most": {manifests{make([]byte, maxManifest+1)}, ""},
	} {
		s := &Snapshotter{manifests: c.manifests}
		if got := s.provenRef(t.Context(), &request{key: "default/1/extract", pulled: "127.0.0.1:5000/app"}, 0); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
