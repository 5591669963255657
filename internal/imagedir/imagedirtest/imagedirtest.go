// Package imagedirtest makes images on IPFS nodes for tests.
package imagedirtest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// A Made image.
type Made struct {
	Root      cid.Cid                  // its directory
	Top       ocispec.Descriptor       // the manifest, or the index
	Manifests []ocispec.Descriptor     // of each platform
	Configs   []ocispec.Descriptor     // likewise
	Layers    []ocispec.Descriptor     // likewise, of one layer each
	Records   []cid.Cid                // likewise
	Data      map[digest.Digest][]byte // of all blobs
}

// Make puts an image of a layer on a node, or for several platforms an index of such.
func Make(t testing.TB, node ipfs.Putter, platforms ...string) Made {
	t.Helper()
	m := maker{t: t, node: node, made: Made{Data: map[digest.Digest][]byte{}}, c: imagedir.Contents{Blobs: map[digest.Digest]int64{}, Hints: map[cid.Cid]int64{}}}
	for _, p := range platforms {
		m.platform(p)
	}
	m.c.Top = m.made.Manifests[0]
	if len(platforms) > 1 {
		m.c.Top = m.blob(ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: m.made.Manifests,
		})
	}
	root, err := imagedir.Write(t.Context(), node, m.c)
	m.must(err)
	m.made.Root, m.made.Top = root, m.c.Top
	return m.made
}

type maker struct {
	t    testing.TB
	node ipfs.Putter
	made Made
	c    imagedir.Contents
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// platform adds an image whose only file says for which platform it is.
func (m *maker) platform(name string) {
	m.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	m.must(w.WriteHeader(&tar.Header{Name: "platform", Mode: 0o644, Size: int64(len(name))}))
	_, err := w.Write([]byte(name))
	m.must(err)
	m.must(w.Close())
	result, err := layer.Write(m.t.Context(), m.node, &b, layer.WriteOptions{})
	m.must(err)
	d, err := mediatype.LayerDigest(result.Root.Cid)
	m.must(err)
	record, err := layer.EncodeImage(&layer.Image{Layers: []layer.ImageLayer{{Digest: d, Block: result.Root.Data}}})
	m.must(err)
	hint := m.put(record)
	m.c.Layers = append(m.c.Layers, result.Root)
	m.c.Hints[hint] = int64(len(record))

	blob := m.bytes(mediatype.Layer, result.Root.Data)
	blob.Annotations = map[string]string{mediatype.AnnotationRoot: result.Root.Cid.String(), mediatype.AnnotationImage: hint.String()}
	config := m.blob(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: name},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{d}},
	})
	manifest := m.blob(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{blob},
	})
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: name}
	m.made.Manifests = append(m.made.Manifests, manifest)
	m.made.Configs = append(m.made.Configs, config)
	m.made.Layers = append(m.made.Layers, blob)
	m.made.Records = append(m.made.Records, hint)
}

func (m *maker) blob(mediaType string, v any) ocispec.Descriptor {
	m.t.Helper()
	text, err := json.Marshal(v)
	m.must(err)
	return m.bytes(mediaType, text)
}

func (m *maker) bytes(mediaType string, data []byte) ocispec.Descriptor {
	m.t.Helper()
	m.put(data)
	d := digest.FromBytes(data)
	m.made.Data[d], m.c.Blobs[d] = data, int64(len(data))
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (m *maker) put(data []byte) cid.Cid {
	m.t.Helper()
	return Put(m.t, m.node, cid.Raw, data).Cid
}

// Put puts a block on a node.
func Put(t testing.TB, node ipfs.Putter, codec uint64, data []byte) ipfs.Block {
	t.Helper()
	b, err := ipfs.NewBlock(codec, data)
	if err == nil {
		err = node.Put(t.Context(), b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Directory puts a directory on a node, of links to blocks.
func Directory(t testing.TB, node ipfs.Putter, links map[string]cid.Cid) ipfs.Block {
	t.Helper()
	var list []layer.Link
	for name, c := range links {
		list = append(list, layer.Link{Name: name, Cid: c})
	}
	b, err := layer.NewDirectory(list)
	if err == nil {
		err = node.Put(t.Context(), b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}
