package convert_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mustConvert converts the image of src.
func mustConvert(t *testing.T, opts convert.Options) *convert.Report {
	t.Helper()
	report, err := convert.Image(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestImage(t *testing.T) {
	tarball := makeTar("hello", "", strings.Repeat("large", 1<<20))
	empty := makeTar()
	cases := map[string]struct {
		docker bool
		mt     string
		pack   func([]byte) []byte
	}{
		"oci gzip":      {mt: ocispec.MediaTypeImageLayerGzip, pack: gzipped},
		"oci zstd":      {mt: ocispec.MediaTypeImageLayerZstd, pack: zstandard},
		"oci plain":     {mt: ocispec.MediaTypeImageLayer, pack: plain},
		"docker gzip":   {mt: dockerLayer, pack: gzipped, docker: true},
		"wrong type":    {mt: ocispec.MediaTypeImageLayerGzip, pack: zstandard},
		"gzip members":  {mt: ocispec.MediaTypeImageLayerGzip, pack: twoMembers},
		"zstd skipping": {mt: ocispec.MediaTypeImageLayerZstd, pack: skippableFirst},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
			im := newImage("amd64").
				layer(src, c.mt, c.pack(tarball), tarball).
				layer(src, c.mt, c.pack(empty), empty).
				layer(src, c.mt, c.pack(tarball), tarball)
			im.layers[0].Annotations = map[string]string{
				"kept": "yes", "containerd.io/snapshot/stargz/toc.digest": "x", "io.containers.estargz.uncompressed-size": "1",
			}
			if c.docker {
				im.manifest.MediaType, im.manifest.Config.MediaType = dockerManifest, dockerConfig
			}
			source := im.store(src)
			peer := "/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
			report := mustConvert(t, convert.Options{Source: src, Target: dst, Node: node, Peers: []string{peer}})
			checkImage(t, dst, node, im, source, report.Manifests[0])
			if report.Digest != dst.tagged.Digest {
				t.Errorf("reported %s, tagged %s", report.Digest, dst.tagged.Digest)
			}
			if n := src.fetched[im.layers[0].Digest]; n != 1 {
				t.Errorf("a layer that the image has twice was read %d times", n)
			}
		})
	}
}

// checkImage checks a converted image against the one it was made from.
func checkImage(t *testing.T, dst *memory, node ipfs.Node, im *testImage, source ocispec.Descriptor, report convert.ManifestReport) {
	t.Helper()
	var manifest ocispec.Manifest
	dst.read(t, report.Digest, &manifest)
	if manifest.MediaType != ocispec.MediaTypeImageManifest || manifest.Config.MediaType != ocispec.MediaTypeImageConfig {
		t.Errorf("types %s and %s are not those of OCI", manifest.MediaType, manifest.Config.MediaType)
	}
	want := maps.Clone(im.manifest.Annotations)
	want[mediatype.AnnotationManifest] = source.Digest.String()
	for _, key := range []string{mediatype.AnnotationManifestData, mediatype.AnnotationConfigData} {
		want[key] = manifest.Annotations[key] // see TestRestore
	}
	if !maps.Equal(manifest.Annotations, want) {
		t.Errorf("annotations %v, want %v", manifest.Annotations, want)
	}
	checkConfig(t, dst, manifest, im)
	if len(manifest.Layers) != len(im.layers) {
		t.Fatalf("%d layers, want %d", len(manifest.Layers), len(im.layers))
	}
	for i, l := range manifest.Layers {
		checkLayer(t, dst, node, l, im, i)
		if r := report.Layers[i]; r.Digest != l.Digest || r.Source != im.layers[i].Digest || r.DiffID != im.diffIDs[i] {
			t.Errorf("layer %d is reported as %+v", i, r)
		}
	}
	checkRecord(t, node, manifest)
}

func checkConfig(t *testing.T, dst *memory, manifest ocispec.Manifest, im *testImage) {
	t.Helper()
	var got, want map[string]json.RawMessage
	dst.read(t, manifest.Config.Digest, &got)
	text, err := json.Marshal(im.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	delete(got, "rootfs")
	delete(want, "rootfs")
	for key := range want {
		var a, b any
		if json.Unmarshal(got[key], &a) != nil || json.Unmarshal(want[key], &b) != nil {
			t.Fatalf("field %s is %s", key, got[key])
		}
	}
	if number := `"number":12345678901234567890`; !strings.Contains(string(got["unknown"]), number) || len(got) != len(want) {
		t.Errorf("config is %s", got)
	}
	var config ocispec.Image
	dst.read(t, manifest.Config.Digest, &config)
	for i, l := range manifest.Layers {
		if config.RootFS.DiffIDs[i] != l.Digest {
			t.Errorf("diffID %d is %s, and the layer %s", i, config.RootFS.DiffIDs[i], l.Digest)
		}
	}
}

func checkLayer(t *testing.T, dst *memory, node ipfs.Node, l ocispec.Descriptor, im *testImage, i int) {
	t.Helper()
	root, err := mediatype.RootCid(l.Digest)
	if err != nil {
		t.Fatal(err)
	}
	source := im.layers[i]
	if l.MediaType != mediatype.Layer || l.Size != int64(len(dst.blobs[l.Digest])) ||
		l.Annotations[mediatype.AnnotationRoot] != root.String() ||
		l.Annotations[mediatype.AnnotationSource] != source.Digest.String() ||
		l.Annotations[mediatype.AnnotationDiffID] != im.diffIDs[i].String() ||
		l.Annotations["kept"] != source.Annotations["kept"] {
		t.Errorf("descriptor %+v", l)
	}
	for key := range l.Annotations {
		if strings.Contains(key, "stargz") {
			t.Errorf("annotation %s describes a blob that is not there any more", key)
		}
	}
	opened, err := layer.Open(t.Context(), node, root)
	if err != nil {
		t.Fatal(err)
	}
	hash := digest.SHA256.Digester()
	if err := opened.WriteTar(t.Context(), node, hash.Hash()); err != nil {
		t.Fatal(err)
	}
	if hash.Digest() != im.diffIDs[i] {
		t.Errorf("the tar comes back as %s, want %s", hash.Digest(), im.diffIDs[i])
	}
	pins, err := node.Pins(t.Context(), "ipcs:unixfs-v1:"+source.Digest.String()+"@"+im.diffIDs[i].String())
	if err != nil || len(pins) != 1 || !pins[0].Root.Equals(root) {
		t.Errorf("pins %v, %v", pins, err)
	}
}

func checkRecord(t *testing.T, node ipfs.Node, manifest ocispec.Manifest) {
	t.Helper()
	c, err := cid.Decode(manifest.Layers[0].Annotations[mediatype.AnnotationImage])
	if err != nil {
		t.Fatal(err)
	}
	data, err := node.Get(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	record, err := layer.DecodeImage(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(record.Peers) != 1 || len(record.Layers) != len(manifest.Layers) {
		t.Errorf("image record %+v", record)
	}
	pins, err := node.Pins(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pins {
		if p.Root.Equals(c) {
			return
		}
	}
	t.Error("the image record is not pinned")
}

func TestSecondConversion(t *testing.T) {
	src, node := newMemory(), ipfstest.NewMemory()
	im := newImage("amd64").files(src, "a", "b").files(src, "c")
	im.store(src)
	first := mustConvert(t, convert.Options{Source: src, Target: newMemory(), Node: node})
	dst := newMemory()
	second := mustConvert(t, convert.Options{Source: src, Target: dst, Node: node})
	other := mustConvert(t, convert.Options{Source: src, Target: newMemory(), Node: ipfstest.NewMemory()})
	if first.Digest != second.Digest || first.Digest != other.Digest {
		t.Errorf("three conversions gave %s, %s and on another node %s", first.Digest, second.Digest, other.Digest)
	}
	for i, l := range im.layers {
		if n := src.fetched[l.Digest]; n != 2 { // first and other
			t.Errorf("layer %d was read %d times, want 2", i, n)
		}
		if r := second.Manifests[0].Layers[i]; !r.Reused || r.Files != first.Manifests[0].Layers[i].Files {
			t.Errorf("layer %d is reported as %+v", i, r)
		}
	}
	if err := dst.complete(dst.tagged); err != nil {
		t.Error(err)
	}
}

// A config that lies about a diffID must not get the layer that was made for the truth.
func TestReuseNeedsTheDiffID(t *testing.T) {
	src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
	newImage("amd64").files(src, "a").store(src)
	mustConvert(t, convert.Options{Source: src, Target: dst, Node: node})
	liar := newImage("amd64").files(src, "a")
	liar.diffIDs[0] = digest.FromString("something else")
	liar.store(src)
	if _, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: node}); !errors.Is(err, convert.ErrCorrupt) {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
}

// What is pinned may be gone or broken: then the layer is converted again.
func TestBrokenReuse(t *testing.T) {
	src, node := newMemory(), ipfstest.NewMemory()
	im := newImage("amd64").files(src, "a")
	im.store(src)
	first := mustConvert(t, convert.Options{Source: src, Target: newMemory(), Node: node})
	root, err := mediatype.RootCid(first.Manifests[0].Layers[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	node.Remove(root)
	notes := &notes{}
	again := mustConvert(t, convert.Options{Source: src, Target: newMemory(), Node: node, Progress: notes})
	if again.Digest != first.Digest || again.Manifests[0].Layers[0].Reused || len(notes.texts) != 1 {
		t.Errorf("report %+v, notes %q", again, notes.texts)
	}
}

func TestFailureTagsNothing(t *testing.T) {
	fault := errors.New("disk full")
	t.Run("target", func(t *testing.T) {
		for _, mt := range []string{mediatype.Layer, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest} {
			src, dst := newMemory(), newMemory()
			newImage("amd64").files(src, "a").store(src)
			dst.push = func(d ocispec.Descriptor) error {
				if d.MediaType == mt {
					return fault
				}
				return nil
			}
			_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory()})
			if !errors.Is(err, fault) || dst.tagged.Digest != "" {
				t.Errorf("%s cannot be pushed: error %v, tagged %q", mt, err, dst.tagged.Digest)
			}
		}
	})
	t.Run("node", func(t *testing.T) {
		for _, op := range []string{"put", "pin", "pins"} {
			src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
			newImage("amd64").files(src, "a").store(src)
			node.SetFault(func(name string, _ cid.Cid) error {
				if name == op {
					return fault
				}
				return nil
			})
			_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: node})
			if !errors.Is(err, fault) || dst.tagged.Digest != "" {
				t.Errorf("%s fails: error %v, tagged %q", op, err, dst.tagged.Digest)
			}
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
		newImage("amd64").files(src, "a").files(src, "b").files(src, "c").store(src)
		ctx, cancel := context.WithCancel(t.Context())
		node.SetFault(func(op string, _ cid.Cid) error {
			if op == "pin" {
				cancel()
			}
			return nil
		})
		_, err := convert.Image(ctx, convert.Options{Source: src, Target: dst, Node: node})
		if !errors.Is(err, context.Canceled) || dst.tagged.Digest != "" {
			t.Errorf("error %v, tagged %q", err, dst.tagged.Digest)
		}
	})
}

// A node that fails ends the conversion also while the source has nothing to say.
func TestFailureWhileSourceStalls(t *testing.T) {
	src, node := &stalling{newMemory(), make(chan struct{})}, ipfstest.NewMemory()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // layer.Write puts a batch a core
	random := make([]byte, 20<<20)                  // some batches
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // never fails
	newImage("amd64").files(src.memory, string(random)).store(src.memory)
	fault := errors.New("disk full")
	node.SetFault(func(op string, _ cid.Cid) error {
		if op == "put" {
			<-src.stalled
			return fault
		}
		return nil
	})
	_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: newMemory(), Node: node})
	if !errors.Is(err, fault) {
		t.Errorf("error %v", err)
	}
}

// stalling is a source of which the end of large blobs never comes.
type stalling struct {
	*memory
	stalled chan struct{} // closed when somebody waits for that end
}

func (s *stalling) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := s.memory.Fetch(ctx, desc)
	if err != nil || desc.Size < 1<<20 {
		return rc, err
	}
	most := io.LimitReader(rc, desc.Size-1<<10)
	end := readerFunc(func([]byte) (int, error) {
		close(s.stalled)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	return io.NopCloser(io.MultiReader(most, end)), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// notes keeps what was noted, and checks that every layer ends once.
type notes struct {
	mu    sync.Mutex
	texts []string
	ended int
}

func (n *notes) Note(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.texts = append(n.texts, text)
}

func (n *notes) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended++
}

func (n *notes) Layer(convert.LayerInfo) convert.LayerProgress { return n }
func (n *notes) Read(int64)                                    {}
func (n *notes) Done(convert.LayerReport)                      { n.end() }
func (n *notes) Failed(error)                                  { n.end() }
