package convert_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// A trip is an image that was converted.
type trip struct {
	src, ipcs *memory
	node      *ipfstest.Memory
	image     *testImage
	source    ocispec.Descriptor
}

func newTrip(t *testing.T, im *testImage, src *memory, change func(*convert.Options)) *trip {
	t.Helper()
	tr := &trip{src: src, ipcs: newMemory(), node: ipfstest.NewMemory(), image: im, source: im.store(src)}
	opts := convert.Options{Source: src, Target: tr.ipcs, Node: tr.node}
	if change != nil {
		change(&opts)
	}
	mustConvert(t, opts)
	tr.ipcs.top = tr.ipcs.tagged
	return tr
}

// back restores the image.
func (tr *trip) back(t *testing.T, compression string) (*memory, *convert.Report) {
	t.Helper()
	dst := newMemory()
	report, err := convert.Restore(t.Context(), convert.Options{Source: tr.ipcs, Target: dst, Node: tr.node, Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	if report.Digest != dst.tagged.Digest {
		t.Errorf("reported %s, tagged %s", report.Digest, dst.tagged.Digest)
	}
	return dst, report
}

func ordinaryImage(src *memory) *testImage {
	tarball := makeTar("hello", "", strings.Repeat("large", 1<<20))
	empty := makeTar()
	return newImage("amd64").
		layer(src, ocispec.MediaTypeImageLayer, tarball, tarball).
		layer(src, ocispec.MediaTypeImageLayerGzip, gzipped(empty), empty).
		layer(src, ocispec.MediaTypeImageLayer, tarball, tarball)
}

func TestRestore(t *testing.T) {
	packed := map[string]func([]byte) []byte{convert.None: plain, convert.Gzip: gunzipped, convert.Zstd: unzstandard}
	suffix := map[string]string{convert.None: "", convert.Gzip: "+gzip", convert.Zstd: "+zstd"}
	for compression, open := range packed {
		for name, keep := range map[string]bool{"": false, " kept": true} {
			t.Run("tar"+suffix[compression]+name, func(t *testing.T) {
				src := newMemory()
				tr := newTrip(t, ordinaryImage(src), src, func(o *convert.Options) { o.KeepDiffIDs = keep })
				dst, report := tr.back(t, compression)
				var manifest ocispec.Manifest
				dst.read(t, report.Digest, &manifest)
				if manifest.Config.Digest != tr.image.manifest.Config.Digest {
					t.Errorf("config %s, the original's is %s", manifest.Config.Digest, tr.image.manifest.Config.Digest)
				}
				if !maps.Equal(manifest.Annotations, tr.image.manifest.Annotations) {
					t.Errorf("annotations %v, the original's are %v", manifest.Annotations, tr.image.manifest.Annotations)
				}
				for i, l := range manifest.Layers {
					if got := digest.FromBytes(open(dst.blobs[l.Digest])); got != tr.image.diffIDs[i] {
						t.Errorf("layer %d: diffID %s, want %s", i, got, tr.image.diffIDs[i])
					}
					if want := ocispec.MediaTypeImageLayer + suffix[compression]; l.MediaType != want || l.Size != int64(len(dst.blobs[l.Digest])) {
						t.Errorf("layer %d: %+v", i, l)
					}
					if r := report.Manifests[0].Layers[i]; r.Digest != l.Digest || r.DiffID != tr.image.diffIDs[i] {
						t.Errorf("layer %d is reported as %+v", i, r)
					}
				}
			})
		}
	}
}

// TestRestoreWhole gives back an image that had no compressed layer to the last bit, so
// that its signatures hold.
func TestRestoreWhole(t *testing.T) {
	for _, docker := range []bool{false, true} {
		src := newMemory()
		tarball := makeTar("hello")
		im := newImage("amd64")
		mt := ocispec.MediaTypeImageLayer
		if docker {
			mt = "application/vnd.docker.image.rootfs.diff.tar"
			im.manifest.MediaType, im.manifest.Config.MediaType = dockerManifest, dockerConfig
		}
		tr := newTrip(t, im.layer(src, mt, tarball, tarball), src, nil)
		if _, report := tr.back(t, convert.None); report.Digest != tr.source.Digest {
			t.Errorf("docker %t: manifest %s, the original is %s", docker, report.Digest, tr.source.Digest)
		}
	}
}

// rewrite changes the converted manifest.
func (tr *trip) rewrite(t *testing.T, change func(m *ocispec.Manifest)) {
	t.Helper()
	var manifest ocispec.Manifest
	tr.ipcs.read(t, tr.ipcs.top.Digest, &manifest)
	change(&manifest)
	tr.ipcs.top = tr.ipcs.addJSON(manifest.MediaType, manifest)
}

// rewriteConfig changes the converted config.
func (tr *trip) rewriteConfig(t *testing.T, change func(c *ocispec.Image)) {
	t.Helper()
	tr.rewrite(t, func(m *ocispec.Manifest) {
		var config ocispec.Image
		tr.ipcs.read(t, m.Config.Digest, &config)
		change(&config)
		m.Config = tr.ipcs.addJSON(m.Config.MediaType, config)
	})
}

// TestRestoreWithoutOriginal rewrites the config of an image that is not, or no longer,
// what travels with it.
func TestRestoreWithoutOriginal(t *testing.T) {
	tarball := makeTar("more")
	for name, change := range map[string]func(t *testing.T, tr *trip){
		"none travels": func(t *testing.T, tr *trip) {
			tr.rewrite(t, func(m *ocispec.Manifest) { m.Annotations = nil })
		},
		"the config was changed": func(t *testing.T, tr *trip) {
			tr.rewriteConfig(t, func(c *ocispec.Image) { c.Config.Env = []string{"CHANGED=1"} })
		},
		"an ordinary layer on top": func(t *testing.T, tr *trip) {
			tr.rewriteConfig(t, func(c *ocispec.Image) { c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(tarball)) })
			tr.rewrite(t, func(m *ocispec.Manifest) {
				m.Layers = append(m.Layers, tr.ipcs.add(ocispec.MediaTypeImageLayerGzip, gzipped(tarball)))
			})
		},
		"a layer less": func(t *testing.T, tr *trip) {
			tr.rewriteConfig(t, func(c *ocispec.Image) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:1] })
			tr.rewrite(t, func(m *ocispec.Manifest) { m.Layers = m.Layers[:1] })
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := newMemory()
			tr := newTrip(t, ordinaryImage(src), src, nil)
			change(t, tr)
			dst, report := tr.back(t, convert.None)
			var manifest ocispec.Manifest
			var had, config ocispec.Image
			dst.read(t, report.Digest, &manifest)
			dst.read(t, manifest.Config.Digest, &config)
			var converted ocispec.Manifest
			tr.ipcs.read(t, tr.ipcs.top.Digest, &converted)
			tr.ipcs.read(t, converted.Config.Digest, &had)
			if !slices.Equal(config.Config.Env, had.Config.Env) || len(config.RootFS.DiffIDs) != len(manifest.Layers) {
				t.Errorf("config %+v", config)
			}
			for i, l := range manifest.Layers {
				want := digest.FromBytes(tarball)
				if i < len(tr.image.diffIDs) {
					want = tr.image.diffIDs[i]
				}
				if config.RootFS.DiffIDs[i] != want {
					t.Errorf("diffID %d is %s, want %s", i, config.RootFS.DiffIDs[i], want)
				}
				if strings.Contains(l.MediaType, "ipcs") {
					t.Errorf("layer %d: %+v", i, l)
				}
			}
			for key := range manifest.Annotations {
				if strings.Contains(key, "ipcs") {
					t.Errorf("annotation %s is left", key)
				}
			}
		})
	}
}

// TestRestoreRefuses gives back nothing that is not the original.
func TestRestoreRefuses(t *testing.T) {
	fault := errors.New("disk full")
	for name, c := range map[string]struct {
		change func(t *testing.T, tr *trip)
		want   error
	}{
		"another diffID": {func(t *testing.T, tr *trip) {
			tr.rewrite(t, func(m *ocispec.Manifest) {
				m.Annotations = nil
				m.Layers[0].Annotations[mediatype.AnnotationDiffID] = digest.FromString("x").String()
			})
		}, convert.ErrCorrupt},
		"a block is nowhere": {func(t *testing.T, tr *trip) {
			leaf, err := ipfs.NewBlock(0x55, []byte("hello"))
			if err != nil {
				t.Fatal(err)
			}
			tr.node.Remove(leaf.Cid)
		}, ipfs.ErrNotFound},
		"the target fails": {func(_ *testing.T, tr *trip) {}, fault},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newMemory(), newMemory()
			tr := newTrip(t, ordinaryImage(src), src, nil)
			c.change(t, tr)
			if errors.Is(c.want, fault) {
				dst.push = func(ocispec.Descriptor) error { return fault }
			}
			_, err := convert.Restore(t.Context(), convert.Options{Source: tr.ipcs, Target: dst, Node: tr.node})
			if !errors.Is(err, c.want) || dst.tagged.Digest != "" {
				t.Errorf("error %v, want %v; tagged %q", err, c.want, dst.tagged.Digest)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	for _, keep := range []bool{false, true} {
		src := newMemory()
		tr := newTrip(t, ordinaryImage(src), src, func(o *convert.Options) { o.KeepDiffIDs = keep })
		report, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node})
		if err != nil {
			t.Fatal(err)
		}
		m := report.Manifests[0]
		if m.Original != tr.source.Digest || m.Digest != tr.ipcs.top.Digest || len(m.Layers) != 3 || m.Error != "" {
			t.Errorf("report %+v", m)
		}
		for i, l := range m.Layers {
			if l.DiffID != tr.image.diffIDs[i] || l.Error != "" || l.Bytes == 0 {
				t.Errorf("layer %d: %+v", i, l)
			}
		}
	}
}

// TestVerifyFails finds out every image that is not what it was made from.
func TestVerifyFails(t *testing.T) {
	other := newMemory()
	elsewhere := newTrip(t, newImage("amd64").files(other, "evil").files(other).files(other, "more"), other, nil)
	var evil ocispec.Manifest
	elsewhere.ipcs.read(t, elsewhere.ipcs.top.Digest, &evil)
	for name, change := range map[string]func(m *ocispec.Manifest){
		"no original":              func(m *ocispec.Manifest) { m.Annotations = nil },
		"another original":         func(m *ocispec.Manifest) { m.Annotations = evil.Annotations },
		"another manifest travels": func(m *ocispec.Manifest) { copyAnnotation(m, evil, mediatype.AnnotationManifestData) },
		"another config travels":   func(m *ocispec.Manifest) { copyAnnotation(m, evil, mediatype.AnnotationConfigData) },
		"nothing that is base64":   func(m *ocispec.Manifest) { m.Annotations[mediatype.AnnotationConfigData] = "?" },
		"another size of a root":   func(m *ocispec.Manifest) { m.Layers[0].Size++ },
		"another root":             func(m *ocispec.Manifest) { m.Layers[0].Annotations[mediatype.AnnotationRoot] = "bafy" },
		"another image's layers": func(m *ocispec.Manifest) {
			m.Layers, m.Config = evil.Layers, evil.Config
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := newMemory()
			tr := newTrip(t, ordinaryImage(src), src, nil)
			maps.Copy(tr.ipcs.blobs, elsewhere.ipcs.blobs)
			mustConvert(t, convert.Options{Source: elsewhere.src, Target: newMemory(), Node: tr.node})
			tr.rewrite(t, change)
			report, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node})
			if !errors.Is(err, convert.ErrUnproven) || report == nil {
				t.Fatalf("error %v, report %+v", err, report)
			}
			t.Logf("%+v", report.Manifests[0])
		})
	}
}

func copyAnnotation(m *ocispec.Manifest, from ocispec.Manifest, key string) {
	m.Annotations[key] = from.Annotations[key]
}

// TestVerifyTampered has the node serve wrong bytes for one block after the other.
func TestVerifyTampered(t *testing.T) {
	src := newMemory()
	tr := newTrip(t, newImage("amd64").files(src, "hello", "world").files(src, "more"), src, nil)
	for _, c := range tr.node.Cids() {
		tr.node.Corrupt(c)
		report, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node})
		if !isRecord(t, tr, c.String()) && !errors.Is(err, convert.ErrUnproven) {
			t.Errorf("block %s with other bytes: %v, %+v", c, err, report)
		}
		tr.node.Heal(c)
	}
}

// isRecord says whether a block is the image record, which is a hint and proves nothing.
func isRecord(t *testing.T, tr *trip, c string) bool {
	t.Helper()
	var manifest ocispec.Manifest
	tr.ipcs.read(t, tr.ipcs.top.Digest, &manifest)
	return manifest.Layers[0].Annotations[mediatype.AnnotationImage] == c
}

// TestKeepDiffIDs leaves the config as it is, and says so to the snapshotter.
func TestKeepDiffIDs(t *testing.T) {
	src := newMemory()
	tr := newTrip(t, ordinaryImage(src), src, func(o *convert.Options) { o.KeepDiffIDs = true })
	var manifest ocispec.Manifest
	tr.ipcs.read(t, tr.ipcs.top.Digest, &manifest)
	if manifest.Config.Digest != tr.image.manifest.Config.Digest || !bytes.Equal(tr.ipcs.blobs[manifest.Config.Digest], src.blobs[manifest.Config.Digest]) {
		t.Errorf("config %+v", manifest.Config)
	}
	for i, l := range manifest.Layers {
		if l.Annotations[mediatype.AnnotationKeep] != "true" || l.MediaType != mediatype.Layer {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
}
