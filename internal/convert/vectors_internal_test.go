package convert

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
)

// vectorFile has vectors of image records, which package layer makes and reads, and of
// originals that travel. Each package keeps those of the other as they are.
const vectorFile = "../../spec/testdata/image.json"

// An originalVector is an image: either an original travels with it that counts, or the
// error is "original".
type originalVector struct {
	Name     string `json:"name"`
	Manifest string `json:"manifest"`
	Config   string `json:"config"`
	Original string `json:"original,omitempty"`
	Error    string `json:"error,omitempty"`
}

// TestOriginalVectors executes the vectors of originals, and writes them with -update.
func TestOriginalVectors(t *testing.T) {
	have, _ := os.ReadFile(vectorFile) // without it there are no records yet
	_, originals := layertest.SplitImageCases(t, layertest.KeepVectors(t, vectorFile, makeVectors(t, have)))
	good, bad := 0, 0
	for _, v := range layertest.DecodeCases[originalVector](t, layertest.EncodeCases(t, originals)) {
		if v.Error == "" {
			good++
		} else {
			bad++
		}
		t.Run(v.Name, v.run)
	}
	if good == 0 || bad == 0 {
		t.Errorf("%d cases with an original, %d without", good, bad)
	}
}

func (v originalVector) run(t *testing.T) {
	data := []byte(v.Manifest)
	manifest, err := parseManifest(data, checkTarOrIpcs)
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromString(v.Config) != manifest.Config.Digest {
		t.Fatal("the config is not that of the manifest")
	}
	desc := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	im, err := newImage(desc, data, manifest, []byte(v.Config))
	if err != nil {
		t.Fatal(err)
	}
	orig, err := im.original()
	switch {
	case v.Error != "" && v.Error != "original":
		t.Errorf("no error is called %q", v.Error)
	case (err != nil) != (v.Error == "original"):
		t.Errorf("got %v, want %q", err, v.Error)
	case err == nil && orig.desc.Digest.String() != v.Original:
		t.Errorf("the original is %s, want %s", orig.desc.Digest, v.Original)
	}
}

// makeVectors makes the file, with the records that it has.
func makeVectors(t *testing.T, have []byte) []byte {
	t.Helper()
	all, _ := layertest.SplitImageCases(t, have)
	for _, v := range originalVectors(t) {
		all = append(all, layertest.EncodeCase(t, v))
	}
	return layertest.EncodeCases(t, all)
}

// A conversion is an image and what it is converted to. What the tables change of it is
// made consistent again by vector, but for what the case is about.
type conversion struct {
	original ocispec.Manifest
	config   string // of the original
	kept     bool
	manifest ocispec.Manifest
	made     string // the config of the converted image
}

// tarDigest and rootDigest are the digests of layer number i, as it was and as it is.
func tarDigest(i int) digest.Digest { return digest.FromString(fmt.Sprint("tar ", i)) }

func rootDigest(i int) digest.Digest { return digest.FromString(fmt.Sprint("layer root ", i)) }

// configOf is the config of an image with these diffIDs, and another field.
func configOf(env string, diffIDs ...digest.Digest) string {
	quoted := make([]string, len(diffIDs))
	for i, d := range diffIDs {
		quoted[i] = fmt.Sprintf("%q", d)
	}
	return `{ "os":"linux","architecture":"amd64", "config":{"Env":["` + env + `"]},"rootfs":{"type":"layers","diff_ids":[` + strings.Join(quoted, ",") + `]}}`
}

// newConversion converts an image of two layers, whose manifest and layers are OCI's or
// Docker's.
func newConversion(docker bool) *conversion {
	manifest, config, tar := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	if docker {
		manifest, config, tar = images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2LayerGzip
	}
	version := specs.Versioned{SchemaVersion: 2}
	c := &conversion{config: configOf("A=1", tarDigest(0), tarDigest(1))}
	c.original = ocispec.Manifest{Versioned: version, MediaType: manifest, Config: ocispec.Descriptor{MediaType: config}}
	c.manifest = ocispec.Manifest{Versioned: version, MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig}}
	for i := range 2 {
		c.original.Layers = append(c.original.Layers, ocispec.Descriptor{MediaType: tar, Digest: digest.FromString(fmt.Sprint("gzip ", i)), Size: 100})
		c.manifest.Layers = append(c.manifest.Layers, ocispec.Descriptor{MediaType: mediatype.Layer, Digest: rootDigest(i), Size: 200})
	}
	return c
}

// keep makes it a conversion that keeps diffIDs.
func (c *conversion) keep() {
	c.kept = true
	for i := range c.manifest.Layers {
		c.manifest.Layers[i].Annotations = map[string]string{mediatype.AnnotationKeep: "true"}
	}
}

// seal fills in digests, and has the original travel.
func (c *conversion) seal(t *testing.T) (original []byte) {
	t.Helper()
	c.original.Config.Digest, c.original.Config.Size = digest.FromString(c.config), int64(len(c.config))
	original, err := json.Marshal(c.original)
	if err != nil {
		t.Fatal(err)
	}
	c.travel(t, original)
	c.made = c.config
	if !c.kept {
		var ids []digest.Digest
		for i, l := range c.manifest.Layers {
			if ids = append(ids, l.Digest); l.MediaType != mediatype.Layer {
				ids[i] = tarDigest(i)
			}
		}
		c.made = rewritten(t, c.config, ids...)
	}
	return original
}

// travel sets the annotations, for the bytes of a manifest.
func (c *conversion) travel(t *testing.T, original []byte) {
	t.Helper()
	im := &image{desc: ocispec.Descriptor{Digest: digest.FromBytes(original)}, data: original, configData: []byte(c.config)}
	c.manifest.Annotations = make(map[string]string)
	if err := im.annotateOriginal(c.manifest.Annotations, c.kept); err != nil {
		t.Fatal(err)
	}
}

func rewritten(t *testing.T, config string, diffIDs ...digest.Digest) string {
	t.Helper()
	im := new(image)
	if _, err := im.parseConfig([]byte(config)); err != nil {
		t.Fatal(err)
	}
	made, err := rewriteConfig(im.config, diffIDs)
	if err != nil {
		t.Fatal(err)
	}
	return string(made)
}

// vector is the converted image, with the digest of its config.
func (c *conversion) vector(t *testing.T, name, word string, original []byte) originalVector {
	t.Helper()
	c.manifest.Config.Digest, c.manifest.Config.Size = digest.FromString(c.made), int64(len(c.made))
	manifest, err := marshal(c.manifest)
	if err != nil {
		t.Fatal(err)
	}
	v := originalVector{Name: name, Manifest: string(manifest), Config: c.made, Error: word}
	if word == "" {
		v.Original = digest.FromBytes(original).String()
	}
	return v
}
