package convert_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
)

// memory is a source and a target, with its images in memory.
type memory struct {
	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	top     ocispec.Descriptor // what Resolve returns
	tagged  ocispec.Descriptor // what Tag was given
	fetched map[digest.Digest]int
	push    func(ocispec.Descriptor) error // fails pushes
}

var (
	_ convert.Source = (*memory)(nil)
	_ convert.Target = (*memory)(nil)
)

func newMemory() *memory {
	return &memory{blobs: map[digest.Digest][]byte{}, fetched: map[digest.Digest]int{}}
}

func (m *memory) String() string                { return "memory" }
func (m *memory) Origin() string                { return "registry.example.com/memory" }
func (m *memory) Close(context.Context) error   { return nil }
func (m *memory) Prepare(context.Context) error { return nil }

func (m *memory) Resolve(context.Context) (ocispec.Descriptor, error) { return m.top, nil }

func (m *memory) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched[desc.Digest]++
	data, ok := m.blobs[desc.Digest]
	if !ok {
		return nil, errors.New("no such blob")
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memory) Push(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.push != nil {
		if err := m.push(desc); err != nil {
			return err
		}
	}
	if desc.Digest.Algorithm().FromBytes(data) != desc.Digest || int64(len(data)) != desc.Size {
		return fmt.Errorf("pushed %s does not match its descriptor", desc.Digest)
	}
	m.blobs[desc.Digest] = data
	return nil
}

func (m *memory) PushStream(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(buf.Bytes()), Size: int64(buf.Len())}
	return desc, m.Push(ctx, desc, buf.Bytes())
}

// Tag refuses what refers to blobs that were not pushed, as a registry does.
func (m *memory) Tag(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	if err := m.Push(ctx, desc, data); err != nil {
		return err
	}
	m.tagged = desc
	return m.complete(desc)
}

func (m *memory) complete(desc ocispec.Descriptor) error {
	data, ok := m.blobs[desc.Digest]
	if !ok {
		return fmt.Errorf("%s %s is missing", desc.MediaType, desc.Digest)
	}
	var doc struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if desc.MediaType != ocispec.MediaTypeImageManifest && desc.MediaType != ocispec.MediaTypeImageIndex {
		return nil
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	children := append(doc.Layers, doc.Manifests...)
	if doc.Config != nil {
		children = append(children, *doc.Config)
	}
	for _, c := range children {
		if err := m.complete(c); err != nil {
			return err
		}
	}
	return nil
}

// add stores a blob.
func (m *memory) add(mt string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m.blobs[desc.Digest] = data
	return desc
}

func (m *memory) addJSON(mt string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // of a value that the test wrote down
	}
	return m.add(mt, data)
}

// read decodes a blob.
func (m *memory) read(t *testing.T, d digest.Digest, v any) {
	t.Helper()
	data, ok := m.blobs[d]
	if !ok {
		t.Fatalf("blob %s is missing", d)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// Docker's media types.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// A testImage is an image under construction; tests change what they want broken.
type testImage struct {
	manifest ocispec.Manifest
	config   map[string]any
	diffIDs  []digest.Digest
	layers   []ocispec.Descriptor
}

// newImage returns an image with a config that has more in it than anybody knows.
func newImage(arch string) *testImage {
	return &testImage{
		manifest: ocispec.Manifest{
			Versioned:   specs.Versioned{SchemaVersion: 2},
			MediaType:   ocispec.MediaTypeImageManifest,
			Config:      ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig},
			Annotations: map[string]string{"org.opencontainers.image.title": "<&>"},
		},
		config: map[string]any{
			"architecture": arch, "os": "linux",
			"config":         map[string]any{"Cmd": []string{"/bin/sh", "-c", "a && b > c"}},
			"history":        []any{map[string]any{"created_by": "<test>"}},
			"unknown":        map[string]any{"number": json.Number("12345678901234567890"), "float": json.Number("1.10")},
			"docker_version": "1",
		},
	}
}

// layer adds a layer.
func (im *testImage) layer(m *memory, mt string, blob, tarball []byte) *testImage {
	im.layers = append(im.layers, m.add(mt, blob))
	im.diffIDs = append(im.diffIDs, digest.FromBytes(tarball))
	return im
}

// files adds a gzip layer of files with these contents.
func (im *testImage) files(m *memory, contents ...string) *testImage {
	tarball := makeTar(contents...)
	return im.layer(m, ocispec.MediaTypeImageLayerGzip, gzipped(tarball), tarball)
}

// store writes the config and manifest, and makes the manifest what is resolved.
func (im *testImage) store(m *memory) ocispec.Descriptor {
	if _, ok := im.config["rootfs"]; !ok {
		im.config["rootfs"] = map[string]any{"type": "layers", "diff_ids": im.diffIDs}
	}
	im.manifest.Config = m.addJSON(im.manifest.Config.MediaType, im.config)
	im.manifest.Layers = im.layers
	m.top = m.addJSON(im.manifest.MediaType, im.manifest)
	return m.top
}

func makeTar(contents ...string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, c := range contents {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("file%d", i), Mode: 0o644, Size: int64(len(c))})
		if err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, c); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func gzipped(data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func zstandard(data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(data, nil)
}

func plain(data []byte) []byte { return data }

func gunzipped(data []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		panic(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return out
}

func unzstandard(data []byte) []byte {
	r, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		panic(err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return out
}

// twoMembers is gzip as some tools write it that compress in parallel.
func twoMembers(data []byte) []byte {
	half := len(data) / 2
	return append(gzipped(data[:half]), gzipped(data[half:])...)
}

// skippableFirst is zstd with a frame before it that holds no data.
func skippableFirst(data []byte) []byte {
	return append([]byte{0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}, zstandard(data)...)
}

// closeStore closes a source or target at the end of a test.
func closeStore(t *testing.T, c interface{ Close(context.Context) error }) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
