package layer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// vectorDir has the vectors: cases for other implementations, too. Its README says what is
// in each file.
const vectorDir = "../spec/testdata"

// errDiffID is what the vectors call diff-id. Verify only tells the hash of the tar: whose
// it should be, the caller knows.
var errDiffID = errors.New("the tar has another diffID")

// vectorWords are the words of vectors for errors, and the errors. An error may wrap several,
// as a tar is refused for what its index would be: the first of them counts.
var vectorWords = []struct {
	word string
	err  error
}{
	{"hash", ipfs.ErrHash}, {"limit", ErrTooLarge}, {"xattr", ErrXattr}, {"path", ErrPath}, {"hardlink", ErrHardlink},
	{"tar", ErrTar}, {"tar-split", ErrTarSplit}, {"views", ErrViews}, {"diff-id", errDiffID}, {"root", ErrRoot},
	{"file", ipfs.ErrFile}, {"index", ErrIndex}, {"image", ErrImage}, {"profile", ErrProfile}, {"directory", ErrDirectory},
}

// wordOf returns the word for an error.
func wordOf(err error) string {
	for _, w := range vectorWords {
		if errors.Is(err, w.err) {
			return w.word
		}
	}
	if err != nil {
		return "(no word)"
	}
	return ""
}

func checkWord(t *testing.T, err error, want string) {
	t.Helper()
	if got := wordOf(err); got != want {
		t.Errorf("got %v, which is %q; want %q", err, got, want)
	}
}

// TestVectors executes every vector, and writes those that tables make with -update.
func TestVectors(t *testing.T) {
	t.Run("tables", compareTables)
	readers := map[string]func(*testing.T, []byte){
		"index.json":       runIndexVectors,
		"root.json":        runRootVectors,
		"layers.json":      func(*testing.T, []byte) {}, // the table has executed them
		"tar.json":         runTarVectors,
		"tarsplit.json":    runSplitVectors,
		"broken.json":      runBrokenVectors,
		"merge.json":       runMergeVectors,
		"directories.json": runDirectoryVectors,
		"image.json":       runImageVectors,
		"profile.json":     runProfileVectors,
		"imagedir.json":    func(*testing.T, []byte) {}, // package imagedir executes them
		"seeds.json":       func(*testing.T, []byte) {}, // and package seed these
	}
	files, err := filepath.Glob(vectorDir + "/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	used := make(map[string]bool)
	for _, file := range files {
		name := filepath.Base(file)
		run := readers[name]
		delete(readers, name)
		if name == "README.md" {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil || run == nil {
			t.Errorf("nobody reads %s (%v)", name, err)
			continue
		}
		t.Run(name, func(t *testing.T) {
			checkNames(t, b, used)
			run(t, b)
		})
	}
	for name := range readers {
		t.Errorf("there is no %s", name)
	}
	for _, w := range vectorWords {
		if !used[w.word] {
			t.Errorf("no vector has the error %q", w.word)
		}
	}
}

// checkNames wants cases, with names that are unique and words that mean something.
func checkNames(t *testing.T, b []byte, used map[string]bool) {
	t.Helper()
	var heads []struct {
		Name, Error string
	}
	if err := json.Unmarshal(b, &heads); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"": true, "original": true, "seed": true} // of packages convert and seed
	for _, w := range vectorWords {
		known[w.word] = true
	}
	names := make(map[string]bool)
	for _, h := range heads {
		if h.Name == "" || names[h.Name] || !known[h.Error] {
			t.Errorf("case %q with error %q: its name comes twice, or nobody knows the error", h.Name, h.Error)
		}
		names[h.Name], used[h.Error] = true, true
	}
	if len(heads) < 5 {
		t.Errorf("%d cases", len(heads))
	}
}

// TestVectorFiles holds the table of files in the vectors' README to the folder.
func TestVectorFiles(t *testing.T) {
	readme, err := os.ReadFile(vectorDir + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+\\.json)` \\|").FindAllSubmatch(readme, -1) {
		named[string(m[1])] = true
	}
	files, err := filepath.Glob(vectorDir + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !named[filepath.Base(file)] {
			t.Errorf("the README does not name %s", file)
		}
	}
	if len(named) != len(files) {
		t.Errorf("the README names %d files, there are %d", len(named), len(files))
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A vector is a case of index.json and root.json.
type vector struct {
	Name  string `json:"name"`
	Hex   string `json:"hex"`
	Error string `json:"error"`
}

func runIndexVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[vector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			x, err := DecodeIndex(raw)
			checkWord(t, err, v.Error)
			if err != nil {
				return
			}
			if again, err := EncodeIndex(x); err != nil || !bytes.Equal(again, raw) {
				t.Errorf("written as %x, %v", again, err)
			}
		})
	}
}

func runRootVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[vector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			block, err := ipfs.NewBlock(cid.DagProtobuf, unhex(t, v.Hex))
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseRoot(block)
			checkWord(t, err, v.Error)
		})
	}
}

// A tarVector is a tar that is refused.
type tarVector struct {
	Name  string    `json:"name"`
	Tar   []tarPart `json:"tar"`
	Error string    `json:"error"`
}

func runTarVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[tarVector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			if v.Error == "" {
				t.Error("the case has no error")
			}
			_, err := Write(t.Context(), newMemory(), bytes.NewReader(buildTar(t, v.Tar)), WriteOptions{})
			checkWord(t, err, v.Error)
		})
	}
}

// A brokenVector is a layer of which something is wrong.
type brokenVector struct {
	Name   string            `json:"name"`
	Root   string            `json:"root"`
	Blocks map[string]string `json:"blocks"` // CID to hex
	Step   string            `json:"step"`
	DiffID string            `json:"diffID,omitempty"`
	Error  string            `json:"error,omitempty"`
}

// The steps that such a layer is put through.
const (
	stepOpen    = "open"
	stepRebuild = "rebuild"
	stepVerify  = "verify"
)

func runBrokenVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[brokenVector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			blocks := make(given)
			for c, data := range v.Blocks {
				blocks[c] = unhex(t, data)
			}
			root, err := cid.Decode(v.Root)
			if err != nil {
				t.Fatal(err)
			}
			step, err := v.execute(t.Context(), blocks, root)
			if checkWord(t, err, v.Error); step != v.Step {
				t.Errorf("step %s ends it, want %s", step, v.Step)
			}
		})
	}
}

// execute goes through the steps to the one that is named, and returns the last one done.
func (v *brokenVector) execute(ctx context.Context, src Source, root cid.Cid) (step string, err error) {
	l, err := Open(ctx, src, root)
	if err != nil || v.Step == stepOpen {
		return stepOpen, err
	}
	tarball, err := l.OpenTar(ctx, src)
	if err == nil {
		err = tarball.Write(ctx, io.Discard)
	}
	if err != nil || v.Step == stepRebuild {
		return stepRebuild, err
	}
	proof, err := tarball.Verify(ctx, nil)
	if err == nil && proof.DiffID != digest.Digest(v.DiffID) {
		err = fmt.Errorf("%w: %s", errDiffID, proof.DiffID)
	}
	return stepVerify, err
}

// given is a Source of what a vector lists, which verifies it as every Source does.
type given map[string][]byte

func (g given) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	data, ok := g[c.String()]
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, ipfs.ErrNotFound)
	}
	return data, ipfs.Verify(c, data)
}

func (g given) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return fetchEach(ctx, g.Get, cids, fn)
}

// An imageVector is an image record or, with other fields that package convert reads, an
// original that travels.
type imageVector struct {
	Name   string `json:"name"`
	Record string `json:"record"`
	Error  string `json:"error,omitempty"`
}

func runImageVectors(t *testing.T, b []byte) {
	records, _ := layertest.SplitImageCases(t, b)
	for _, v := range layertest.DecodeCases[imageVector](t, layertest.EncodeCases(t, records)) {
		t.Run(v.Name, func(t *testing.T) {
			m, err := DecodeImage([]byte(v.Record))
			if checkWord(t, err, v.Error); err == nil {
				checkRecord(t, v.Record, m)
			}
		})
	}
}

// checkRecord compares what was read of a record with its JSON, field by field.
func checkRecord(t *testing.T, record string, m *Image) {
	t.Helper()
	var fields struct {
		layers []map[string]any
		peers  []string
		id     string
	}
	var object map[string]json.RawMessage
	err := json.Unmarshal([]byte(record), &object)
	for name, to := range map[string]any{"layers": &fields.layers, "peers": &fields.peers, "profile": &fields.id} {
		if raw, ok := object[name]; ok && err == nil {
			err = json.Unmarshal(raw, to)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != 1 || m.Profile != fields.id || strings.Join(m.Peers, " ") != strings.Join(fields.peers, " ") || len(m.Layers) != len(fields.layers) {
		t.Fatalf("read as %+v", m)
	}
	for i, l := range m.Layers {
		want := fields.layers[i]
		if string(l.Digest) != want["digest"] || base64.StdEncoding.EncodeToString(l.Block) != want["block"] {
			t.Errorf("layer %d is read as %s, %x", i, l.Digest, l.Block)
		}
	}
}
