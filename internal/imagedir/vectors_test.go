package imagedir_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/internal/imagedir/imagedirtest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
)

const vectorFile = "../../spec/testdata/imagedir.json"

// A vector is what a CID leads to: an image, of which it says what it has, or an error.
type vector struct {
	Name   string                   `json:"name"`
	Root   string                   `json:"root"`
	Blocks map[string]string        `json:"blocks"`
	Tags   map[string]digest.Digest `json:"tags,omitempty"`
	Has    []digest.Digest          `json:"has,omitempty"`
	HasNot []digest.Digest          `json:"hasNot,omitempty"`
	Layers []string                 `json:"layers,omitempty"` // CIDs, of what a writer is given
	Hints  []string                 `json:"hints,omitempty"`
	Error  string                   `json:"error,omitempty"`
}

// TestVectors executes every vector, and writes them with -update.
func TestVectors(t *testing.T) {
	all := layertest.DecodeCases[vector](t, layertest.KeepVectors(t, vectorFile, layertest.EncodeCases(t, vectors(t))))
	good, written := 0, 0
	for _, v := range all {
		if v.Error == "" {
			good++
		}
		if len(v.Layers) > 0 {
			written++
			t.Run(v.Name+" written", v.write)
		}
		t.Run(v.Name, v.read)
	}
	if good == 0 || written == 0 || good == len(all) {
		t.Errorf("of %d cases %d are right and %d written", len(all), good, written)
	}
}

func (v vector) node(t *testing.T) *ipfstest.Memory {
	t.Helper()
	node := ipfstest.NewMemory()
	for name, text := range v.Blocks {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Put(t.Context(), ipfs.Block{Cid: parse(t, name), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	return node
}

func parse(t *testing.T, s string) cid.Cid {
	t.Helper()
	c, err := cid.Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// read opens the image, and asks for all that it has, and has not.
func (v vector) read(t *testing.T) {
	im, err := imagedir.Open(t.Context(), v.node(t), parse(t, v.Root))
	if v.Error != "" {
		if v.Error != "directory" || !errors.Is(err, imagedir.ErrImage) {
			t.Errorf("error %v, want %s", err, v.Error)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]digest.Digest{}
	for _, name := range im.Tags() {
		if tags[name], err = im.Tag(name); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(tags, v.Tags) {
		t.Errorf("tags %v, want %v", tags, v.Tags)
	}
	for _, d := range v.Has {
		if data, err := im.Blob(t.Context(), d); err != nil || digest.FromBytes(data) != d {
			t.Errorf("blob %s: %q, %v", d, data, err)
		}
	}
	for _, d := range v.HasNot {
		if data, err := im.Blob(t.Context(), d); !errors.Is(err, imagedir.ErrUnknown) {
			t.Errorf("blob %s: %q, %v", d, data, err)
		}
	}
}

// write makes the directory of an image from its contents.
func (v vector) write(t *testing.T) {
	node := v.node(t)
	c := imagedir.Contents{Blobs: map[digest.Digest]int64{}, Hints: map[cid.Cid]int64{}}
	block := func(name string) ipfs.Block {
		b := ipfs.Block{Cid: parse(t, name)}
		var err error
		if b.Data, err = node.Get(t.Context(), b.Cid); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, d := range v.Has {
		at, err := mediatype.BlobCid(d)
		if err != nil {
			t.Fatal(err)
		}
		data := block(at.String()).Data
		c.Blobs[d] = int64(len(data))
		if d == v.Tags["latest"] {
			m, err := imagedir.ParseManifest(data)
			if err != nil {
				t.Fatal(err)
			}
			c.Top = ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(data))}
		}
	}
	for _, name := range v.Layers {
		c.Layers = append(c.Layers, block(name))
	}
	for _, name := range v.Hints {
		b := block(name)
		c.Hints[b.Cid] = int64(len(b.Data))
	}
	if root, err := imagedir.Write(t.Context(), ipfstest.NewMemory(), c); err != nil || root.String() != v.Root {
		t.Errorf("%s, %v; want %s", root, err, v.Root)
	}
}

// vectors are the cases: an image of one layer and no file, and directories that are almost one.
func vectors(t *testing.T) []vector {
	t.Helper()
	m := newVectorMaker(t)
	all := []vector{m.good(), m.byManifest()}
	for _, c := range []struct {
		name   string
		change func(map[string]cid.Cid)
		error  string
	}{
		{"names that nobody knows", func(l map[string]cid.Cid) { l["README"], l["more"] = m.raw("hello"), m.dir(nil) }, ""},
		{"no oci-layout", func(l map[string]cid.Cid) { delete(l, "oci-layout") }, "directory"},
		{"another version of the layout", func(l map[string]cid.Cid) { l["oci-layout"] = m.raw(`{"imageLayoutVersion":"2.0.0"}`) }, "directory"},
		{"no index.json", func(l map[string]cid.Cid) { delete(l, "index.json") }, "directory"},
		{"an index.json that is no JSON", func(l map[string]cid.Cid) { l["index.json"] = m.raw("{") }, "directory"},
		{"an index.json with a name twice", func(l map[string]cid.Cid) { l["index.json"] = m.raw(`{"manifests":[],"manifests":[]}`) }, "directory"},
		{"no blobs", func(l map[string]cid.Cid) { delete(l, "blobs") }, "directory"},
		{"no sha256", func(l map[string]cid.Cid) { l["blobs"] = m.dir(nil) }, "directory"},
		{"blobs that are a file", func(l map[string]cid.Cid) { l["blobs"] = m.raw("") }, "directory"},
	} {
		all = append(all, m.changed(c.name, c.change, c.error))
	}
	return append(all, m.lying(), m.sharded())
}

// A vectorMaker makes blocks.
type vectorMaker struct {
	t        *testing.T
	node     *ipfstest.Memory
	manifest digest.Digest
	blobs    []digest.Digest // all
	root     ipfs.Block      // of the layer
	record   cid.Cid
	top      cid.Cid // the directory
}

func newVectorMaker(t *testing.T) *vectorMaker {
	t.Helper()
	m := &vectorMaker{t: t, node: ipfstest.NewMemory()}
	// A layer root of an empty layer, but for its parts, which nobody looks at here.
	part := m.raw("part of a layer")
	m.root = imagedirtest.Directory(t, m.node, map[string]cid.Cid{"index": part, "rootfs": m.dir(nil), "tar-split": part})
	m.raw(string(m.root.Data))
	layerDigest := digest.FromBytes(m.root.Data)
	m.record = m.raw(`{"version":1,"layers":[]}`)
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + layerDigest.String() + `"]}}`
	m.raw(config)
	text, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
		"config": ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString(config), Size: int64(len(config))},
		"layers": []ocispec.Descriptor{{MediaType: mediatype.Layer, Digest: layerDigest, Size: int64(len(m.root.Data)), Annotations: map[string]string{
			mediatype.AnnotationRoot: m.root.Cid.String(), mediatype.AnnotationImage: m.record.String(),
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.raw(string(text))
	m.manifest = digest.FromBytes(text)
	m.blobs = []digest.Digest{m.manifest, digest.FromString(config), layerDigest}
	c := imagedir.Contents{
		Top:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: m.manifest, Size: int64(len(text))},
		Blobs:  map[digest.Digest]int64{m.manifest: int64(len(text)), m.blobs[1]: int64(len(config)), layerDigest: int64(len(m.root.Data))},
		Layers: []ipfs.Block{m.root}, Hints: map[cid.Cid]int64{m.record: 25},
	}
	if m.top, err = imagedir.Write(t.Context(), m.node, c); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *vectorMaker) raw(text string) cid.Cid {
	m.t.Helper()
	return imagedirtest.Put(m.t, m.node, cid.Raw, []byte(text)).Cid
}

func (m *vectorMaker) dir(links map[string]cid.Cid) cid.Cid {
	m.t.Helper()
	return imagedirtest.Directory(m.t, m.node, links).Cid
}

// vector has the blocks that a root leads to.
func (m *vectorMaker) vector(name string, root cid.Cid) vector {
	m.t.Helper()
	v := vector{Name: name, Root: root.String(), Blocks: map[string]string{}}
	for todo := []cid.Cid{root}; len(todo) > 0; todo = todo[1:] {
		data, err := m.node.Get(m.t.Context(), todo[0])
		if err != nil {
			continue // a shard
		}
		v.Blocks[todo[0].String()] = hex.EncodeToString(data)
		links, err := ipfs.Links(ipfs.Block{Cid: todo[0], Data: data})
		if err != nil {
			m.t.Fatal(err)
		}
		todo = append(todo, links...)
	}
	return v
}

func (m *vectorMaker) good() vector {
	v := m.vector("an image", m.top)
	v.Tags, v.Has, v.HasNot = map[string]digest.Digest{"latest": m.manifest}, m.blobs, []digest.Digest{digest.FromString("part of a layer")}
	v.Layers, v.Hints = []string{m.root.Cid.String()}, []string{m.record.String()}
	return v
}

// byManifest names the image by its manifest.
func (m *vectorMaker) byManifest() vector {
	at, err := mediatype.BlobCid(m.manifest)
	if err != nil {
		m.t.Fatal(err)
	}
	v := m.vector("an image by its manifest", at)
	for _, d := range m.blobs {
		c, err := mediatype.BlobCid(d)
		if err != nil {
			m.t.Fatal(err)
		}
		maps.Copy(v.Blocks, m.vector("", c).Blocks)
	}
	v.Tags, v.Has, v.HasNot = map[string]digest.Digest{"latest": m.manifest}, m.blobs, []digest.Digest{digest.FromString("part of a layer")}
	return v
}

// changed is a directory with other names.
func (m *vectorMaker) changed(name string, change func(map[string]cid.Cid), word string) vector {
	m.t.Helper()
	data, err := m.node.Get(m.t.Context(), m.top)
	if err != nil {
		m.t.Fatal(err)
	}
	list, err := layer.ReadDirectory(ipfs.Block{Cid: m.top, Data: data})
	if err != nil {
		m.t.Fatal(err)
	}
	links := map[string]cid.Cid{}
	for _, l := range list {
		links[l.Name] = l.Cid
	}
	change(links)
	v := m.vector(name, m.dir(links))
	if v.Error = word; word == "" {
		v.Tags, v.Has = map[string]digest.Digest{"latest": m.manifest}, m.blobs
	}
	return v
}

// lying is a directory in which a blob has another's name.
func (m *vectorMaker) lying() vector {
	of := digest.FromString("another blob")
	v := m.changed("a blob with another's name", func(l map[string]cid.Cid) {
		l["index.json"] = m.raw(`{"manifests":[]}`)
		l["blobs"] = m.dir(map[string]cid.Cid{"sha256": m.dir(map[string]cid.Cid{of.Encoded(): m.raw("a blob")})})
	}, "")
	v.Tags, v.Has, v.HasNot = nil, nil, []digest.Digest{of}
	return v
}

// sharded is a directory that is one of shards.
func (m *vectorMaker) sharded() vector {
	v := m.vector("a sharded directory", imagedirtest.Put(m.t, m.node, cid.DagProtobuf, []byte{0x0a, 2, 8, 5}).Cid)
	v.Error = "directory"
	return v
}

// TestSpec holds the example and the limits of the specification to the code.
func TestSpec(t *testing.T) {
	text, err := os.ReadFile("../../spec/image.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## On IPFS\n")
	section, _, _ = strings.Cut(section, "\n## ")
	m := newVectorMaker(t)
	root, err := mediatype.BlobCid(m.manifest)
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{m.top.String(), root.String(), m.manifest.String(), m.root.Cid.String(), m.record.String()}
	for _, d := range m.blobs {
		wanted = append(wanted, d.Encoded())
	}
	i := slices.IndexFunc(wanted, func(s string) bool { return !strings.Contains(section, s) })
	if i >= 0 {
		t.Errorf("the example has not %s, of %q", wanted[i], wanted)
	}
}
