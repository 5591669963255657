package convert

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const manifestStart = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},`

// TestManifestNames refuses fields that some decoders take for those we read and write.
func TestManifestNames(t *testing.T) {
	for _, field := range []string{`"Layers":[]`, `"layers":[],"layer\u017f":[]`, `"CONFIG":{}`, `"Annotations":{}`} {
		if _, err := parseManifest([]byte(manifestStart+field+`}`), checkTar); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want %v", field, err, ErrCorrupt)
		}
	}
	if m, err := parseManifest([]byte(manifestStart+`"layers":null,"later":[]}`), checkTar); err != nil || len(m.Layers) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestRootfsTwice refuses a config that decoders which put fields together read differently.
func TestRootfsTwice(t *testing.T) {
	id := digest.FromString("x").String()
	for config, want := range map[string]error{
		`{"rootfs":{"type":"layers","diff_ids":["` + id + `"]},"rootfs":{"type":"layers"}}`:                          ErrCorrupt,
		`{"rootfs":{"type":"layers"},"rootfs":{"type":"layers","diff_ids":["` + id + `"]}}`:                          nil,
		`{"rootfs":{"diff_ids":["` + id + `"]},"rootfs":{"type":"layers","diff_ids":["` + id + `"]},"history":null}`: nil,
	} {
		if _, err := new(image).parseConfig([]byte(config)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", config, err, want)
		}
	}
}

// TestDocumentBombs decodes documents of many short elements, of which each would take much
// more room than its text.
func TestDocumentBombs(t *testing.T) {
	elements := strings.Repeat("{},", 1<<20) + "{}"
	config := `{"history":[` + elements + `],"rootfs":{"type":"layers"}}`
	index := `{"manifests":[` + elements + `]}`
	for name, f := range map[string]func() error{
		"layers": func() error {
			_, err := parseManifest([]byte(manifestStart+`"layers":[`+elements+`]}`), func(ocispec.Descriptor) error { return nil })
			return err
		},
		"history":   func() error { _, err := new(image).parseConfig([]byte(config)); return err },
		"manifests": func() error { return new(walk).index(t.Context(), ocispec.Descriptor{}, []byte(index), 1) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := f()
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 40 {
			t.Errorf("%s: %d MiB for a text of %d (%v)", name, n, len(elements)>>20, err)
		}
		if (name == "history") != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// namedImages is a store that knows which names were given.
type namedImages struct {
	images.Store
	names []string
}

func (s *namedImages) Create(_ context.Context, im images.Image) (images.Image, error) {
	s.names = append(s.names, im.Name)
	return im, nil
}

// TestContainerdTagLast gives no name to an image that the snapshotter could not take.
func TestContainerdTagLast(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fault := errors.New("no such block")
	for _, want := range []error{nil, fault} {
		names := &namedImages{}
		c := &containerdImage{ref: "app", namespace: "x", images: names, content: store,
			snapshots: func(context.Context, ocispec.Descriptor) error { return want }}
		data := []byte("not looked into")
		desc := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := c.Tag(t.Context(), desc, data); !errors.Is(err, want) || (len(names.names) == 1) != (want == nil) {
			t.Errorf("got %v, want %v; named %q", err, want, names.names)
		}
	}
}
