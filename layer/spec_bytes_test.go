package layer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/opencontainers/go-digest"
)

// exampleIndex is the index of the example in "Index".
func exampleIndex(t *testing.T) *Index {
	t.Helper()
	d, a, b := dir("bin"), text("bin/a", "hello"), hard("bin/b", "bin/a")
	d.Sec, a.Sec, b.Sec = 1, 1, 1
	b.Mode = 0o644
	return index(t, d, a, b)
}

func specIndex(t *testing.T, fences []fence) {
	f, x := only(t, fences), exampleIndex(t)
	want, err := EncodeIndex(x)
	if err != nil {
		t.Fatal(err)
	}
	f.wantBytes(t, want)
	if raw, err := f.bytes(); err == nil {
		if got, err := DecodeIndex(raw); err != nil || list(got) != list(x) {
			t.Errorf("it is read as %v, %v", got, err)
		}
	}
}

func specRoot(t *testing.T, fences []fence) {
	f := only(t, fences)
	f.wantBytes(t, rootVector(t, "without shadowed"))
}

// specNodes executes the blocks of "UnixFS", in their order.
func specNodes(t *testing.T, fences []fence) {
	ctx := context.Background()
	var nodes [][]byte
	keep := func(b ipfs.Block) error {
		nodes = append(nodes, b.Data)
		return nil
	}
	file := ipfs.File{Size: ipfs.LeafSize + 1, Leaves: strings.Repeat("\x11", sumSize) + strings.Repeat("\x22", sumSize)}
	if _, err := ipfs.BuildFile(file.Size, file.Leaves, keep); err != nil {
		t.Fatal(err)
	}
	tsize, err := file.DagSize()
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, "layer.md", "It has %d bytes, so that a link to it has the Tsize %s.", len(nodes[0]), thousands(int64(tsize)))
	nodes = append(nodes, symlinkNode("bin/a"))
	x := exampleIndex(t)
	if _, err := BuildRootfs(ctx, x, keep); err != nil {
		t.Fatal(err)
	}
	wantText(t, "layer.md", "The empty directory is `% x`.", directoryNode(nil))
	wantText(t, "layer.md", "It has %d bytes. The directory that holds it as `bin`:", len(nodes[2]))
	hello := x.Entries[2].File()
	links := []link{{"hello", hello.Cid, uint64(hello.Size)}, {"hello, world", hello.Cid, uint64(hello.Size)}}
	if _, err := buildShards(ctx, links, keep); err != nil {
		t.Fatal(err)
	}
	if len(nodes) != len(fences) {
		t.Fatalf("%d blocks for %d nodes", len(fences), len(nodes))
	}
	for i, f := range fences {
		f.wantBytes(t, nodes[i])
	}
}

// specTarSplit rebuilds the tar that the example is of, and makes the example of it again.
func specTarSplit(t *testing.T, fences []fence) {
	f := only(t, fences)
	example := buildTar(t, readmeTar(t))
	l, m := convert(t, example)
	f.wantBytes(t, unzipped(t, m, l.TarSplit))
	split, err := f.bytes()
	if err != nil {
		return
	}
	r, err := newSplitReader(bytes.NewReader(zipped(t, split)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var tarball []byte
	for {
		rec, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if tarball = append(tarball, rec.raw...); rec.size > 0 {
			tarball = append(tarball, "hello"[:rec.size]...)
		}
	}
	if !bytes.Equal(tarball, example) {
		t.Errorf("it is of another tar than the example of the vectors' README:\n%q", tarball)
	}
	specPlaces(t)
}

// specPlaces holds the places that stand in the text to the code.
func specPlaces(t *testing.T) {
	t.Helper()
	var zip bytes.Buffer
	w, err := newSplitWriter(&zip)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close([]int32{5, 3, -1, 3}); err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	places := bytes.TrimPrefix(unzipped(t, m, putFile(t, m, zip.Bytes())), []byte(splitMagic+varints(splitEnd, 4)))
	wantText(t, "layer.md", "the entries 5 and 3, a shadowed file and entry 3, the places are `% x`.", places)
}

// readmeTar is the example of a tar in the vectors' README.
func readmeTar(t *testing.T) []tarPart {
	t.Helper()
	m := regexp.MustCompile(`(?s)\n    (\[\{"header".*?)\n\n`).FindStringSubmatch(readText(t, vectorDir+"/README.md"))
	if m == nil {
		t.Fatal("the README of the vectors has no tar")
	}
	var parts []tarPart
	if err := json.Unmarshal([]byte(m[1]), &parts); err != nil {
		t.Fatal(err)
	}
	return parts
}

// specGrammar holds the grammar of the tar-split to the code.
func specGrammar(t *testing.T, fences []fence) {
	want := map[string]string{
		"tar-split": "magic *record table",
		"magic":     `%s"` + strings.TrimSuffix(splitMagic, "\n") + `" %x0A`,
		"record":    "raw / payload",
		"raw":       abnfByte(splitRaw) + " length 1*" + decimal(maxSegment) + "OCTET",
		"payload":   abnfByte(splitPayload) + " size",
		"table":     abnfByte(splitEnd) + " count *place",
		"length":    "varint ; 1 to " + thousands(maxSegment),
		"size":      "varint ; 1 to " + power(MaxFile),
		"count":     "varint",
		"place":     "varint",
		"varint":    "*9%x80-FF %x00-7F",
	}
	f := only(t, fences)
	for _, line := range f.lines() {
		name, rule, _ := strings.Cut(line, "=")
		name, rule = strings.TrimSpace(name), strings.Join(strings.Fields(rule), " ")
		if wanted, ok := want[name]; !ok || rule != wanted && !strings.HasPrefix(rule, wanted+" ;") {
			t.Errorf("%s: rule %q is %q, want %q", f, name, rule, wanted)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("%s: rules are missing: %v", f, want)
	}
}

// specRecord fills in the example of an image record, and reads and writes it.
func specRecord(t *testing.T, fences []fence) {
	f := only(t, fences)
	block := rootVector(t, "without shadowed")
	data := base64.StdEncoding.EncodeToString(block)
	record := strings.TrimSpace(f.body)
	record = strings.Replace(record, "sha256:…", digest.FromBytes(block).String(), 1)
	record = strings.Replace(record, data[:4]+"…", data, 1)
	m, err := DecodeImage([]byte(record))
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	if again, err := EncodeImage(m); err != nil || string(again) != record {
		t.Errorf("%s: written as %s, %v", f, again, err)
	}
	if len(m.Layers) != 1 || len(m.Peers) != 1 {
		t.Errorf("%s: read as %+v", f, m)
	}
}
