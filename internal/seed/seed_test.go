package seed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/zstd"

	"github.com/hinshun/ipcs/ipfs"
)

func newCodec(t testing.TB) *Codec {
	t.Helper()
	c, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// randomBlocks returns blocks of all sizes, of which some compress.
func randomBlocks(t testing.TB, n int) []ipfs.Block {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{2, 1, 100, 4 << 10, 100 << 10, GroupSize - 1, GroupSize, GroupSize + 1, ipfs.LeafSize, ipfs.MaxBlock}
	var list []ipfs.Block
	for i := range n {
		data := make([]byte, sizes[i%len(sizes)])
		if i == 0 {
			data = nil
		}
		for j := range data {
			data[j] = byte(r.UintN(uint(1 + i%7*40)))
		}
		copy(data, []byte{byte(i), byte(i >> 8)}) // all are different
		codec := uint64(cid.Raw)
		if i%5 == 3 {
			codec = cid.DagProtobuf
		}
		b, err := ipfs.NewBlock(codec, data)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

func all(blocks []ipfs.Block) iter.Seq2[ipfs.Block, error] {
	return func(yield func(ipfs.Block, error) bool) {
		for _, b := range blocks {
			if !yield(b, nil) {
				return
			}
		}
	}
}

func write(t testing.TB, blocks, mount []ipfs.Block) (seed []byte, head int64) {
	t.Helper()
	var out bytes.Buffer
	head, err := Write(context.Background(), newCodec(t), &out, all(blocks), mount)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), head
}

// TestSeed finds every block of a seed again, where its table says.
func TestSeed(t *testing.T) {
	list := randomBlocks(t, 200)
	mount, list := list[:3], list[3:]
	b, head := write(t, list, mount)
	again, _ := write(t, list, mount)
	if !bytes.Equal(b, again) {
		t.Error("the same blocks give another seed")
	}
	codec := newCodec(t)
	h, err := ParseHead(codec, b[head:], head)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(h.Mount, mount, func(a, b ipfs.Block) bool { return a.Cid == b.Cid && bytes.Equal(a.Data, b.Data) }) {
		t.Error("what the layer is mounted by is something else")
	}
	for _, want := range append(list, mount...) {
		if got := find(t, codec, h.Table, b, want.Cid); !bytes.Equal(got, want.Data) {
			t.Errorf("%s: %d bytes, want %d", want.Cid, len(got), len(want.Data))
		}
	}
	absent, err := ipfs.NewBlock(cid.Raw, []byte("not there"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []cid.Cid{absent.Cid, cid.NewCidV1(cid.DagProtobuf, list[1].Cid.Hash()), cid.NewCidV0(list[0].Cid.Hash()), {}} {
		for number, got := range h.Table.Prefixes() {
			prefix, ok := Prefix(c)
			if _, same := h.Table.At(number, c); ok && prefix == got && same {
				t.Errorf("%s is found at %d", c, number)
			}
		}
	}
	if h.Table.Len() != 200 {
		t.Errorf("%d blocks", h.Table.Len())
	}
}

// find returns the block with a CID.
func find(t testing.TB, codec *Codec, table *Table, seed []byte, c cid.Cid) []byte {
	t.Helper()
	want, _ := Prefix(c)
	for number, prefix := range table.Prefixes() {
		p, ok := table.At(number, c)
		if prefix != want || !ok {
			continue
		}
		f := table.Frames[p.Frame]
		data, err := table.Decompress(codec, p.Frame, seed[f.Off:f.Off+int64(f.Len)])
		if err != nil {
			t.Fatal(err)
		}
		if b := data[p.From:p.To]; ipfs.Verify(c, b) == nil {
			return b
		}
	}
	return nil
}

// TestOtherDecompressor decompresses a seed as a whole: it is zstd, and the table is skipped.
func TestOtherDecompressor(t *testing.T) {
	list := randomBlocks(t, 30)
	b, _ := write(t, list[4:], list[:4])
	r, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, b := range append(list[4:], list[:4]...) {
		want = append(want, b.Data...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

// TestWriteFails has blocks, output and context fail: Write says so, and ends.
func TestWriteFails(t *testing.T) {
	codec, list := newCodec(t), randomBlocks(t, 50)
	failed := errors.New("failed")
	some := func(yield func(ipfs.Block, error) bool) {
		_ = yield(list[1], nil) && yield(ipfs.Block{}, failed)
	}
	if _, err := Write(t.Context(), codec, io.Discard, some, list[:1]); !errors.Is(err, failed) {
		t.Errorf("no block: %v", err)
	}
	if _, err := Write(t.Context(), codec, failing{failed}, all(list), list[:4]); !errors.Is(err, failed) {
		t.Errorf("no output: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, codec, io.Discard, all(list), list[:4]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Write(t.Context(), codec, io.Discard, all(list), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("nothing to mount by: %v", err)
	}
	if _, err := Write(t.Context(), codec, io.Discard, all(list), slices.Repeat(list[9:10], 9)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too much to mount by: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestParseHeadRefuses changes a head in each way that the specification forbids.
func TestParseHeadRefuses(t *testing.T) {
	codec, list := newCodec(t), randomBlocks(t, 20)
	b, at := write(t, list[4:], list[:4])
	head := b[at:]
	size := int(binary.LittleEndian.Uint32(head[len(head)-trailerSize:]))
	begin := len(head) - trailerSize - size
	table := func(change func([]byte) []byte) []byte { // the head with another table
		raw, err := inflateTable(codec, head[begin:begin+size])
		if err != nil {
			t.Fatal(err)
		}
		frames := len(tableMagic) + 1 // the number of frames, which is small
		return sealed(codec, head[:begin-skipSize], append(raw[:frames:frames], change(raw[frames:])...))
	}
	for what, bad := range map[string][]byte{
		"nothing":             {},
		"cut in front":        head[1:],
		"cut behind":          head[:len(head)-1],
		"longer":              append(slices.Clone(head), 0),
		"other magic":         append(slices.Clone(head[:len(head)-1]), 'D'),
		"table not skippable": change(head, begin-skipSize, 0xff),
		"no digests":          table(func(b []byte) []byte { return b[:len(b)-8] }),
		"more digests":        table(func(b []byte) []byte { return append(slices.Clone(b), 0, 0, 0, 0, 0, 0, 0, 0) }),
		"longer number":       table(func(b []byte) []byte { return append([]byte{b[0] | 0x80, 0}, b[1:]...) }),
		"other version":       sealed(codec, head[:10], []byte("ipcs seed 2\n\x01")),
		"no frames":           sealed(codec, head[:10], []byte(tableMagic+"\x00")),
		"frame of nothing":    sealed(codec, head[:10], []byte(tableMagic+"\x01\x0a\x00")),
		"frame of no length":  sealed(codec, head[:10], []byte(tableMagic+"\x01\x00\x01\x0212345678")),
		"huge frame":          sealed(codec, head[:10], append([]byte(tableMagic+"\x01\x0a\x01\xff\xff\xff\xff\x0f"), "12345678"...)),
		"not where it is":     sealed(codec, head[:10], []byte(tableMagic+"\x01\x0b\x01\x0212345678")),
	} {
		if _, err := ParseHead(codec, bad, at); !errors.Is(err, ErrSeed) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, off := range []int64{-1, 0, at + 1} {
		if _, err := ParseHead(codec, head, off); !errors.Is(err, ErrSeed) {
			t.Errorf("head at %d, not %d: %v", off, at, err)
		}
	}
	// Damage shows, or it changes nothing that anybody believes.
	for i := range head {
		h, err := ParseHead(codec, change(head, i, 1), at)
		if err != nil {
			continue
		}
		for _, b := range h.Mount {
			if err := ipfs.Verify(b.Cid, b.Data); err != nil {
				t.Errorf("byte %d: %v", i, err)
			}
		}
	}
}

func change(b []byte, i int, bits byte) []byte {
	b = slices.Clone(b)
	b[i] ^= bits
	return b
}

// sealed returns a head with these frames and this table.
func sealed(codec *Codec, frames, table []byte) []byte {
	return append(slices.Clone(frames), seal(codec, table)...)
}

// TestSeeds wants the fuzz target to have a corpus.
func TestSeeds(t *testing.T) {
	if seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", "FuzzParseHead")); err != nil || len(seeds) < 3 {
		t.Errorf("%d seeds: %v", len(seeds), err)
	}
}

// FuzzParseHead: what is read has places within its frames, and blocks that are what they say.
func FuzzParseHead(f *testing.F) {
	codec := newCodec(f)
	f.Fuzz(func(t *testing.T, head []byte, off int64) {
		h, err := ParseHead(codec, head, off)
		if err != nil {
			if !errors.Is(err, ErrSeed) && !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		for _, b := range h.Mount {
			if err := ipfs.Verify(b.Cid, b.Data); err != nil {
				t.Fatal(err)
			}
		}
		for i := range h.Table.Len() {
			p := h.Table.place(int32(i))
			if p.From < 0 || p.From > p.To || p.To > h.Table.Frames[p.Frame].Size {
				t.Fatalf("block %d is at %+v", i, p)
			}
		}
	})
}

// BenchmarkWrite compresses blocks as a conversion does.
func BenchmarkWrite(b *testing.B) {
	codec, list := newCodec(b), randomBlocks(b, 100)
	size := int64(0)
	for _, x := range list {
		size += int64(len(x.Data))
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, err := Write(b.Context(), codec, io.Discard, all(list), list[:4]); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSameBeginning has a table with more digests that begin alike than there are by chance.
func TestSameBeginning(t *testing.T) {
	for n, refused := range map[int]bool{maxSame: false, maxSame + 1: true} {
		table := []byte(tableMagic + "\x01\x7f")
		table = append(table, byte(n))
		for range n {
			table = append(table, 2<<1)
		}
		table = append(table, make([]byte, n*prefixSize)...)
		if _, err := parseTable(table, 0, 0x7f); errors.Is(err, ErrSeed) != refused {
			t.Errorf("%d: %v", n, err)
		}
	}
}
