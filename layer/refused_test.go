package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// TestWriteWhatIsRead refuses a tar whose index expands more than a reader lets it, and
// takes one whose index is just below.
func TestWriteWhatIsRead(t *testing.T) {
	const size = 130_000
	value := strings.Repeat("x", size/2)
	files := func(n int) []file {
		all := make([]file, n)
		for i := range all {
			all[i] = file{Name: fmt.Sprint(i), Xattrs: map[string]string{"user.a": value, "user.b": value}}
		}
		return all
	}
	most := freeInflat / (size + 1000)
	convert(t, layertest.Tar(t, files(most)...))
	_, err := Write(t.Context(), newMemory(), bytes.NewReader(layertest.Tar(t, files(most+10)...)), WriteOptions{})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

// TestGlobalHeaderUnreadable refuses global headers that archive/tar gives up on in the
// middle: what it has read until then depends on the order of a map.
func TestGlobalHeaderUnreadable(t *testing.T) {
	for _, record := range []string{"mtime=x", "uid=x", "size=9999999999999999999"} {
		tarball := buildTar(t, ended(global("path=d/x", record), fileEntry("a", "")))
		_, err := Write(t.Context(), newMemory(), bytes.NewReader(tarball), WriteOptions{})
		checkWord(t, err, "tar")
	}
	// One without any record can be read.
	convert(t, buildTar(t, ended(bare(tarHeader{Name: "g", Type: "g"}), fileEntry("a", ""))))
}

// TestSparseNameNUL refuses the one name of a tar that archive/tar lets have a NUL.
func TestSparseNameNUL(t *testing.T) {
	for _, name := range []string{"a\x00b", "a\x00b/c", "d/\x00", "d/.wh.\x00"} {
		records := []string{"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=0", "GNU.sparse.numblocks=0", "GNU.sparse.name=" + name}
		_, err := Write(t.Context(), newMemory(), bytes.NewReader(buildTar(t, ended(pax(records...), fileEntry("s", "")))), WriteOptions{})
		checkWord(t, err, "tar")
	}
}

// TestMissingIsNotMalformed tells a block that nobody has, of index or tar-split, from a
// malformed one: it says nothing of the layer.
func TestMissingIsNotMalformed(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	files := make([]file, 60)
	for i := range files {
		value := make([]byte, 60_000)
		r.Read(value)
		files[i] = file{Name: fmt.Sprint(i), Xattrs: map[string]string{"user.a": string(value)}}
	}
	l, m := convert(t, layertest.Tar(t, files...))
	read := func(ctx context.Context) error {
		l, err := OpenBlock(ctx, m, l.Root)
		if err != nil {
			return err
		}
		return l.WriteTar(ctx, m, new(bytes.Buffer))
	}
	for name, c := range map[string]cid.Cid{"index": l.IndexCid, "tar-split": l.TarSplit} {
		f, err := loadFile(t.Context(), m, c, MaxFile)
		if err != nil {
			t.Fatal(err)
		}
		if f.NumLeaves() < 3 {
			t.Fatalf("%s has %d leaves", name, f.NumLeaves())
		}
		for i := range f.NumLeaves() {
			leaf := f.Leaf(i)
			data := m.blocks[leaf]
			delete(m.blocks, leaf)
			if err := read(t.Context()); !errors.Is(err, ipfs.ErrNotFound) || wordOf(err) != "(no word)" {
				t.Errorf("%s without leaf %d: %v", name, i, err)
			}
			m.blocks[leaf] = data
		}
	}
	if err := read(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestMissingLater takes away what is read when decompression has begun.
func TestMissingLater(t *testing.T) {
	broken := errors.New("cable cut")
	raw := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(raw)
	half := func(b []byte) *brokenReader { return &brokenReader{bytes.NewReader(b[:len(b)/2]), broken} }
	if _, err := inflateIndex(half(zipped(t, raw)), 1<<20); !errors.Is(err, broken) || wordOf(err) != "(no word)" {
		t.Errorf("index: %v", err)
	}
	s, err := newSplitReader(half(zipped(t, []byte(splitMagic+recRaw(string(raw[:maxSegment]))+recRaw(string(raw[maxSegment:2*maxSegment]))+recTable()))))
	for err == nil {
		_, err = s.next()
	}
	if s != nil {
		s.close()
	}
	if !errors.Is(err, broken) || wordOf(err) != "(no word)" {
		t.Errorf("tar-split: %v", err)
	}
}

// A brokenReader reads some bytes, and then fails.
type brokenReader struct {
	r   *bytes.Reader
	err error
}

func (b *brokenReader) Read(p []byte) (int, error) {
	if b.r.Len() == 0 {
		return 0, b.err
	}
	return b.r.Read(p)
}

// TestEqualHashes refuses names that a sharded directory cannot tell apart.
func TestEqualHashes(t *testing.T) {
	a, b := equalHashes(t)
	keep := func(ipfs.Block) error { return nil }
	links := []link{{a, ipfs.RawCid(someDigest), 5}, {b, ipfs.RawCid(someDigest), 5}, {"c", ipfs.RawCid(someDigest), 5}}
	sortLinks(links)
	if _, err := buildShards(t.Context(), links, keep); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%q and %q: got %v, want %v", a, b, err, ErrTooLarge)
	}
	for _, one := range []string{a, b} {
		links := []link{{one, ipfs.RawCid(someDigest), 5}, {one + "x", ipfs.RawCid(someDigest), 5}}
		if _, err := buildShards(t.Context(), links, keep); err != nil {
			t.Errorf("%q alone: %v", one, err)
		}
	}
}

// Constants of MurmurHash3 x64 128.
const (
	murmur1 = 0x87c37b91114253d5
	murmur2 = 0x4cf5ad432745937f
	add1    = 0x52dce729
	add2    = 0x38495ab5
)

// murmur is the state of MurmurHash3 x64 128, which is not made to withstand attackers: a
// block of 16 bytes permutes it, so that some block leads from any state to any other.
type murmur struct{ h1, h2 uint64 }

func (s murmur) block(k1, k2 uint64) murmur {
	s.h1 = (bits.RotateLeft64(s.h1^bits.RotateLeft64(k1*murmur1, 31)*murmur2, 27)+s.h2)*5 + add1
	s.h2 = (bits.RotateLeft64(s.h2^bits.RotateLeft64(k2*murmur2, 33)*murmur1, 31)+s.h1)*5 + add2
	return s
}

// to returns the block that leads from s to the state end.
func (s murmur) to(end murmur) (k1, k2 uint64) {
	m1 := bits.RotateLeft64((end.h1-add1)*inverse(5)-s.h2, -27) ^ s.h1
	m2 := bits.RotateLeft64((end.h2-add2)*inverse(5)-end.h1, -31) ^ s.h2
	k1 = bits.RotateLeft64(m1*inverse(murmur2), -31) * inverse(murmur1)
	k2 = bits.RotateLeft64(m2*inverse(murmur1), -33) * inverse(murmur2)
	return k1, k2
}

// inverse is 1/x modulo 2^64, by Newton's method.
func inverse(x uint64) uint64 {
	y := x
	for range 6 {
		y *= 2 - x*y
	}
	return y
}

// equalHashes returns two names of 32 bytes with the same hash.
func equalHashes(t *testing.T) (a, b string) {
	t.Helper()
	word := func(s string) uint64 { return binary.LittleEndian.Uint64([]byte(s)) }
	a = "0123456789abcdef0123456789abcdef"
	end := murmur{}.block(word(a[:8]), word(a[8:16])).block(word(a[16:24]), word(a[24:]))
	for i := range 1000 {
		first := fmt.Sprintf("%016d", i)
		k1, k2 := murmur{}.block(word(first[:8]), word(first[8:])).to(end)
		b = first + string(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, k1), k2))
		if checkName(b) == nil {
			return a, b
		}
	}
	t.Fatal("no second name")
	return "", ""
}
