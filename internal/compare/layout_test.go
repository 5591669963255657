package compare_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/compare"
	"github.com/hinshun/ipcs/internal/convert"
)

// A file is one of a layer that a test makes.
type file struct {
	name, data string
	uid        int
	date       int64
}

// A layout is an image on the disk.
type layout struct {
	t      testing.TB
	dir    string
	layers []ocispec.Descriptor
	ids    []digest.Digest
	level  int // of compression; 0 is the default
}

func newLayout(t testing.TB) *layout {
	t.Helper()
	l := &layout{t: t, dir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs/sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	l.t.Helper()
	d := digest.FromBytes(data)
	if err := os.WriteFile(filepath.Join(l.dir, "blobs/sha256", d.Encoded()), data, 0o600); err != nil {
		l.t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l *layout) json(mediaType string, v any) ocispec.Descriptor {
	l.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(mediaType, data)
}

// layer adds a layer of files.
func (l *layout) layer(files ...file) *layout {
	l.t.Helper()
	var raw, packed bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Uid: f.uid, ModTime: time.Unix(f.date, 0), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			l.t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	if l.level == 0 {
		l.level = gzip.DefaultCompression
	}
	z, err := gzip.NewWriterLevel(&packed, l.level)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := z.Write(raw.Bytes()); err != nil {
		l.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.layers = append(l.layers, l.blob(ocispec.MediaTypeImageLayerGzip, packed.Bytes()))
	l.ids = append(l.ids, digest.FromBytes(raw.Bytes()))
	return l
}

// ref writes the manifest, and returns the reference.
func (l *layout) ref() string {
	l.t.Helper()
	config := l.json(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: l.ids},
	})
	m := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: l.layers,
	})
	m.Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{m}})
	if err != nil {
		l.t.Fatal(err)
	}
	for name, data := range map[string]string{"index.json": string(index), "oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(data), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	return "oci:" + l.dir
}

// counted is a source that counts the layers that are read of it.
type counted struct {
	convert.Source
	layers *atomic.Int64
}

func (c counted) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if desc.MediaType == ocispec.MediaTypeImageLayerGzip {
		c.layers.Add(1)
	}
	return c.Source.Fetch(ctx, desc)
}

// options compare images, and count the layers that are read.
func options(layers *atomic.Int64, refs ...string) compare.Options {
	return compare.Options{Refs: refs, Open: func(ctx context.Context, ref string) (convert.Source, error) {
		src, err := convert.Access{}.OpenSource(ctx, ref)
		return counted{src, layers}, err
	}}
}

func mustCompare(t testing.TB, opts compare.Options) *compare.Report {
	t.Helper()
	r, err := compare.Compare(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
