package layer

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/layer/layertest"
)

// compareTables holds the files to what the tables make of them. So the bytes of the
// vectors follow from the code, and what must come of them was written down by hand.
func compareTables(t *testing.T) {
	for name, made := range map[string]func(*testing.T) []byte{
		"layers.json":      func(t *testing.T) []byte { return layertest.EncodeCases(t, makeLayerVectors(t)) },
		"tar.json":         func(t *testing.T) []byte { return layertest.EncodeCases(t, refusedTars(t)) },
		"tarsplit.json":    func(t *testing.T) []byte { return layertest.EncodeCases(t, splitVectors()) },
		"broken.json":      func(t *testing.T) []byte { return layertest.EncodeCases(t, brokenVectors(t)) },
		"merge.json":       func(t *testing.T) []byte { return layertest.EncodeCases(t, mergeVectors()) },
		"directories.json": func(t *testing.T) []byte { return layertest.EncodeCases(t, directoryVectors(t)) },
		"image.json":       makeImageVectors,
		"profile.json":     func(t *testing.T) []byte { return layertest.EncodeCases(t, profileVectors(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			layertest.KeepVectors(t, filepath.Join(vectorDir, name), made(t))
		})
	}
}

// A layerVector is a tar, and what becomes of it.
type layerVector struct {
	Name     string    `json:"name"`
	Tar      []tarPart `json:"tar"`
	DiffID   string    `json:"diffID"`
	Entries  []string  `json:"entries"`
	Index    string    `json:"index"`
	Rootfs   string    `json:"rootfs"`
	TarSplit string    `json:"tarSplit"`
	Shadowed string    `json:"shadowed,omitempty"`
	Payloads int       `json:"payloads"`
	Root     string    `json:"root"`
}

// layerOf makes a layer of a tar, and says what it is. The layer is verified on the way.
func layerOf(t *testing.T, tarball []byte) layerVector {
	t.Helper()
	l, m := convert(t, tarball)
	raw, err := EncodeIndex(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := l.OpenTar(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	v := layerVector{
		DiffID:   digest.FromBytes(tarball).String(),
		Entries:  []string{},
		Index:    digest.FromBytes(raw).String(),
		Rootfs:   l.Rootfs.String(),
		TarSplit: digest.FromBytes(unzipped(t, m, l.TarSplit)).String(),
		Payloads: len(opened.places),
		Root:     digest.FromBytes(l.Root.Data).String(),
	}
	if l.Shadowed.Defined() {
		v.Shadowed = l.Shadowed.String()
	}
	for i := 1; i < len(l.Index.Entries); i++ {
		v.Entries = append(v.Entries, entryLine(l.Index, i))
	}
	if proof, err := verify(t, m, l.Root); err != nil || proof.DiffID.String() != v.DiffID {
		t.Errorf("the layer is not proven: %+v, %v", proof, err)
	}
	return v
}

// unzipped is a part of a layer, decompressed.
func unzipped(t *testing.T, m *memory, c cid.Cid) []byte {
	t.Helper()
	f, err := loadFile(t.Context(), m, c, MaxFile)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := newDecompressor(openFile(t.Context(), m, f))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	b, err := io.ReadAll(dec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entryLine says of an entry what vectors say of it: path and kind.
func entryLine(x *Index, i int) string {
	e := &x.Entries[i]
	kind := ""
	major, minor := e.Device()
	switch {
	case e.Whiteout:
		kind = "whiteout"
	case e.Link >= 0:
		kind = "link " + escaped(x.Path(int(e.Link)))
	case e.Implied:
		kind = "implied"
	case e.Mode.IsDir():
		kind = "dir " + octal(e.Mode)
	case e.Mode.IsRegular():
		kind = fmt.Sprintf("file %s %d", octal(e.Mode), e.Size)
	case e.Mode&os.ModeSymlink != 0:
		kind = "symlink " + escaped(e.Target)
	case e.Mode&os.ModeCharDevice != 0:
		kind = fmt.Sprintf("char %d:%d", major, minor)
	case e.Mode&os.ModeDevice != 0:
		kind = fmt.Sprintf("block %d:%d", major, minor)
	case e.Mode&os.ModeNamedPipe != 0:
		kind = "fifo " + octal(e.Mode)
	}
	if e.Opaque {
		kind += " opaque"
	}
	if e.KeepXattrs {
		kind += " keep"
	}
	return escaped(x.Path(i)) + " " + kind
}

// octal is a mode as chmod has it.
func octal(m os.FileMode) string {
	n := uint32(m.Perm())
	for bit, is := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if m&is != 0 {
			n |= bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

// escaped is a path without a byte that is not printed.
func escaped(p string) string {
	var b strings.Builder
	for _, c := range []byte(p) {
		if c < 0x21 || c > 0x7e || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// A layerCase is a tar, and the entries that the specification wants of it.
type layerCase struct {
	name    string
	tar     []tarPart
	entries []string
}

// makeLayerVectors makes the layers, and holds their entries to what the tables want.
func makeLayerVectors(t *testing.T) []layerVector {
	t.Helper()
	var all []layerVector
	for _, cases := range [][]layerCase{endCases(), headerCases(t), paxCases(), sparseCases(t), treeCases(), linkCases(), metaCases(), contentCases(t)} {
		for _, c := range cases {
			v := layerOf(t, buildTar(t, c.tar))
			if !slices.Equal(v.Entries, c.entries) {
				t.Errorf("%s: entries %q, want %q", c.name, v.Entries, c.entries)
			}
			v.Name, v.Tar = c.name, c.tar
			v.Entries = append([]string{}, c.entries...)
			all = append(all, v)
		}
	}
	return all
}

// makeImageVectors makes the cases with records, and keeps the others as they are.
func makeImageVectors(t *testing.T) []byte {
	t.Helper()
	have, _ := os.ReadFile(vectorDir + "/image.json") // without it there are none yet
	_, originals := layertest.SplitImageCases(t, have)
	var all []json.RawMessage
	for _, v := range recordVectors(t) {
		all = append(all, layertest.EncodeCase(t, v))
	}
	return layertest.EncodeCases(t, append(all, originals...))
}
