package imagedir_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
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
)

const zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// TestNoDirectoryOfAnImage refuses directories that are none.
func TestNoDirectoryOfAnImage(t *testing.T) {
	node := ipfstest.NewMemory()
	raw := func(text string) cid.Cid { return imagedirtest.Put(t, node, cid.Raw, []byte(text)).Cid }
	dir := func(links map[string]cid.Cid) cid.Cid { return imagedirtest.Directory(t, node, links).Cid }
	index := `{"manifests":[{"digest":"` + zeros + `"}]}`
	good := map[string]cid.Cid{
		"oci-layout": raw(`{"imageLayoutVersion":"1.0.0"}`), "index.json": raw(index),
		"blobs": dir(map[string]cid.Cid{"sha256": dir(nil)}),
	}
	if im := open(t, node, dir(good)); len(im.Tags()) != 1 {
		t.Errorf("tags %q", im.Tags())
	}
	twice := strings.Repeat(`{"digest":"`+zeros+`","annotations":{"org.opencontainers.image.ref.name":"a"}},`, 2)
	for name, change := range map[string]map[string]cid.Cid{
		"no version":       {"oci-layout": cid.Undef},
		"other version":    {"oci-layout": raw(`{"imageLayoutVersion":"2.0.0"}`)},
		"no JSON":          {"index.json": raw(`{"manifests":[`)},
		"list":             {"index.json": raw(`[]`)},
		"more":             {"index.json": raw(index + `{}`)},
		"names twice":      {"index.json": raw(`{"manifests":[],"manifests":[{"digest":"` + zeros + `"}]}`)},
		"another case":     {"index.json": raw(`{"manifests":[],"Manifests":[{"digest":"` + zeros + `"}]}`)},
		"many fields":      {"index.json": raw(manyFields())},
		"many images":      {"index.json": raw(`{"manifests":[` + strings.Repeat("{},", imagedir.MaxInList) + "{}]}")},
		"no digest":        {"index.json": raw(`{"manifests":[{"digest":"x"}]}`)},
		"odd annotations":  {"index.json": raw(`{"manifests":[{"digest":"` + zeros + `","annotations":7}]}`)},
		"a tag for two":    {"index.json": raw(`{"manifests":[` + twice + `{"digest":"` + string(digest.FromString("")) + `","annotations":{"org.opencontainers.image.ref.name":"a"}}]}`)},
		"no blobs":         {"blobs": cid.Undef},
		"blobs are a file": {"blobs": raw("")},
		"other sums":       {"blobs": dir(map[string]cid.Cid{"sha512": dir(nil)})},
		"sums are a file":  {"blobs": dir(map[string]cid.Cid{"sha256": raw("")})},
		"sums no UnixFS":   {"blobs": dir(map[string]cid.Cid{"sha256": imagedirtest.Put(t, node, cid.DagProtobuf, []byte("x")).Cid})},
		"index is a DAG":   {"index.json": dir(nil)},
	} {
		links := maps.Clone(good)
		maps.Copy(links, change)
		maps.DeleteFunc(links, func(_ string, c cid.Cid) bool { return !c.Defined() })
		if im, err := imagedir.Open(t.Context(), node, dir(links)); !errors.Is(err, imagedir.ErrImage) {
			t.Errorf("%s: %v, %v", name, im, err)
		}
	}
	sharded := imagedirtest.Put(t, node, cid.DagProtobuf, []byte{0x0a, 2, 8, 5})
	if im, err := imagedir.Open(t.Context(), node, sharded.Cid); !errors.Is(err, imagedir.ErrImage) {
		t.Errorf("sharded: %v, %v", im, err)
	}
	links := maps.Clone(good)
	links["blobs"] = dir(map[string]cid.Cid{"sha256": ipfs.RawCid(strings.Repeat("x", 32))})
	if im, err := imagedir.Open(t.Context(), node, dir(links)); !errors.Is(err, imagedir.ErrImage) {
		t.Errorf("a folder that is raw: %v, %v", im, err)
	}
}

func manyFields() string {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `"f%d":0,`, i)
	}
	return "{" + b.String() + `"manifests":[]}`
}

// TestLyingNames has a directory call a block by another's digest, and by what is no digest.
func TestLyingNames(t *testing.T) {
	node := ipfstest.NewMemory()
	other := imagedirtest.Put(t, node, cid.Raw, []byte("other"))
	file := imagedirtest.Directory(t, node, nil)
	d, of := digest.FromString("wanted"), digest.NewDigestFromEncoded(digest.SHA256, strings.Repeat("ab", 32))
	sums := imagedirtest.Directory(t, node, map[string]cid.Cid{d.Encoded(): other.Cid, of.Encoded(): file.Cid, "README": other.Cid})
	root := imagedirtest.Directory(t, node, map[string]cid.Cid{
		"oci-layout": imagedirtest.Put(t, node, cid.Raw, []byte(`{"imageLayoutVersion":"1.0.0"}`)).Cid,
		"index.json": imagedirtest.Put(t, node, cid.Raw, []byte(`{"manifests":[]}`)).Cid,
		"blobs":      imagedirtest.Directory(t, node, map[string]cid.Cid{"sha256": sums.Cid}).Cid,
	})
	im := open(t, node, root.Cid)
	for _, d := range []digest.Digest{d, of} {
		if data, err := im.Blob(t.Context(), d); !errors.Is(err, imagedir.ErrUnknown) {
			t.Errorf("%s: %q, %v", d, data, err)
		}
	}
	if tags := im.Tags(); len(tags) != 0 {
		t.Errorf("tags %q", tags)
	}
}

// TestNoManifest refuses what is none, or two things at once.
func TestNoManifest(t *testing.T) {
	const config = `"config":{"digest":"` + zeros + `"}`
	for text, want := range map[string]string{
		`{"schemaVersion":2,` + config + `}`:                                                                                 ocispec.MediaTypeImageManifest,
		`{"schemaVersion":2,` + config + `,"layers":[{"digest":"` + zeros + `"}]}`:                                           ocispec.MediaTypeImageManifest,
		`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` + config + `,"layers":[]} `: "application/vnd.docker.distribution.manifest.v2+json",
		`{"schemaVersion":2,"manifests":[]}`:                                                                                 ocispec.MediaTypeImageIndex,
		``:                                                                                                                   "",
		`7`:                                                                                                                  "",
		`{`:                                                                                                                  "",
		`{"schemaVersion":2}`:                                                                                                "",
		`{"schemaVersion":1,` + config + `}`:                                                                                 "",
		`{"schemaVersion":"2",` + config + `}`:                                                                               "",
		`{"schemaVersion":2,"layers":[]}`:                                                                                    "",
		`{"schemaVersion":2,` + config + `,"manifests":[]}`:                                     "",
		`{"schemaVersion":2,"layers":[],"manifests":[]}`:                                        "",
		`{"schemaVersion":2,"manifests":{}}`:                                                    "",
		`{"schemaVersion":2,"config":[]}`:                                                       "",
		`{"schemaVersion":2,` + config + `,"LAYERS":[]}`:                                        "",
		`{"schemaVersion":2,"mediaType":7,` + config + `}`:                                      "",
		`{"schemaVersion":2,"mediaType":"text/html",` + config + `}`:                            "",
		`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `",` + config + `}`:  "",
		`{"schemaVersion":2,"manifests":[` + strings.Repeat("{},", imagedir.MaxInList) + "{}]}": "",
	} {
		m, err := imagedir.ParseManifest([]byte(text))
		if want == "" && !errors.Is(err, imagedir.ErrImage) || want != "" && (err != nil || m.MediaType != want) {
			t.Errorf("%.100s: %+v, %v; want %q", text, m, err, want)
		}
	}
}

// TestNames finds that digests which nobody can ask for are not held.
func TestNames(t *testing.T) {
	long := `"sha256:` + strings.Repeat("0", 1<<20) + `"`
	m, err := imagedir.ParseManifest([]byte(`{"schemaVersion":2,"manifests":[{"digest":` + long + `},{"digest":"` + zeros + `"},{"digest":"` + digest.SHA512.FromString("").String() + `"},{}]}`))
	if err != nil || len(m.Names()) != 1 || m.Names()[0] != zeros || !m.IsIndex() {
		t.Errorf("%v, %v", m.Names(), err)
	}
}

// putIndex puts an index of these manifests.
func putIndex(t *testing.T, node ipfs.Putter, manifests ...cid.Cid) cid.Cid {
	t.Helper()
	var list []string
	for _, c := range manifests {
		list = append(list, fmt.Sprintf(`{"digest":"sha256:%x"}`, []byte(c.Hash()[2:])))
	}
	return imagedirtest.Put(t, node, cid.Raw, []byte(`{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`)).Cid
}

// TestWalkIsBounded gives indexes that have no end, and one of which something is missing.
func TestWalkIsBounded(t *testing.T) {
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64")
	manifest, config := blobCid(t, made.Top.Digest), made.Configs[0].Digest
	nested := manifest
	for range imagedir.MaxDepth + 1 {
		im := open(t, node, nested)
		if _, err := im.Blob(t.Context(), config); err != nil {
			t.Error(err)
		}
		nested = putIndex(t, node, nested)
	}
	if _, err := open(t, node, nested).Blob(t.Context(), config); !errors.Is(err, imagedir.ErrUnknown) {
		t.Errorf("more than %d indexes within each other: %v", imagedir.MaxDepth, err)
	}
	var many []cid.Cid
	for i := range 2 * imagedir.MaxWalked {
		many = append(many, imagedirtest.Put(t, node, cid.Raw, []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"n":%d}`, i))).Cid)
	}
	im := open(t, node, putIndex(t, node, append(many, manifest)...))
	before := node.Counts().Blocks
	if _, err := im.Blob(t.Context(), config); !errors.Is(err, imagedir.ErrUnknown) {
		t.Errorf("behind %d manifests: %v", len(many), err)
	}
	if n := node.Counts().Blocks - before; n != imagedir.MaxWalked {
		t.Errorf("%d manifests were read, want %d", n, imagedir.MaxWalked)
	}
	// The other platform's manifest is nowhere: what is here is found, and the rest is not unknown.
	gone := ipfs.RawCid(strings.Repeat("g", 32))
	artifact := imagedirtest.Put(t, node, cid.Raw, []byte("no manifest")).Cid
	im = open(t, node, putIndex(t, node, gone, artifact, manifest))
	if data, err := im.Blob(t.Context(), config); err != nil || !bytes.Equal(data, made.Data[config]) {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := im.Blob(t.Context(), digest.FromString("x")); !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("what a manifest may name that is not here: %v", err)
	}
}

// TestTooManyBlobs makes an image whose directory would have to be sharded.
func TestTooManyBlobs(t *testing.T) {
	node := ipfstest.NewMemory()
	c := imagedir.Contents{Blobs: map[digest.Digest]int64{}}
	for i := range 4096 {
		c.Blobs[digest.FromString(fmt.Sprint(i))] = 1
	}
	if root, err := imagedir.Write(t.Context(), node, c); !errors.Is(err, layer.ErrTooLarge) {
		t.Errorf("%s, %v", root, err)
	}
	if n := node.Len(); n != 0 {
		t.Errorf("%d blocks were written", n)
	}
}

// FuzzOpen opens a manifest, or an index.json, that anybody wrote.
func FuzzOpen(f *testing.F) {
	for _, text := range []string{
		`{"schemaVersion":2,"config":{"digest":"` + zeros + `"},"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"digest":"` + zeros + `"}]}`,
		`{"manifests":[{"digest":"` + zeros + `","annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		node := ipfstest.NewMemory()
		if len(text) > ipfs.MaxBlock {
			return
		}
		b := imagedirtest.Put(t, node, cid.Raw, text)
		root := imagedirtest.Directory(t, node, map[string]cid.Cid{
			"oci-layout": imagedirtest.Put(t, node, cid.Raw, []byte(`{"imageLayoutVersion":"1.0.0"}`)).Cid, "index.json": b.Cid,
			"blobs": imagedirtest.Directory(t, node, map[string]cid.Cid{"sha256": imagedirtest.Directory(t, node, nil).Cid}).Cid,
		})
		for _, root := range []cid.Cid{b.Cid, root.Cid} {
			im, err := imagedir.Open(t.Context(), node, root)
			if err != nil {
				if !errors.Is(err, imagedir.ErrImage) {
					t.Fatal(err)
				}
				continue
			}
			for _, tag := range im.Tags() {
				d, err := im.Tag(tag)
				if err != nil {
					t.Fatal(err)
				}
				m, err := im.Manifest(t.Context(), d)
				if err == nil && (digest.FromBytes(m.Data) != d || m.IsIndex() == strings.Contains(m.MediaType, "manifest.v1")) {
					t.Fatalf("%s is %+v", d, m)
				}
			}
		}
	})
}
