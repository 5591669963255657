package seed

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

const vectorFile = "../../spec/testdata/seeds.json"

// A vector is a seed, and what is in it, or an error.
type vector struct {
	Name   string   `json:"name"`
	Seed   string   `json:"seed"` // hex
	Head   int64    `json:"head"`
	Mount  []string `json:"mount,omitempty"`  // CIDs, in order
	Blocks []string `json:"blocks,omitempty"` // CIDs of all blocks, in order
	Error  string   `json:"error,omitempty"`
}

// TestVectors executes every vector, and writes them with -update.
func TestVectors(t *testing.T) {
	all := layertest.DecodeCases[vector](t, layertest.KeepVectors(t, vectorFile, layertest.EncodeCases(t, vectors(t))))
	good := 0
	for _, v := range all {
		if v.Error == "" {
			good++
		}
		t.Run(v.Name, v.read)
	}
	if good == 0 || good == len(all) {
		t.Errorf("of %d cases %d are right", len(all), good)
	}
}

// read reads the head, and then every block.
func (v vector) read(t *testing.T) {
	b, err := hex.DecodeString(v.Seed)
	if err != nil {
		t.Fatal(err)
	}
	codec := newCodec(t)
	h, err := ParseHead(codec, b[v.Head:], v.Head)
	word := ""
	switch {
	case errors.Is(err, ErrTooLarge):
		word = "limit"
	case errors.Is(err, ErrSeed):
		word = "seed"
	case err != nil:
		t.Fatal(err)
	}
	if word != v.Error {
		t.Fatalf("%v, want %q", err, v.Error)
	}
	if err != nil {
		return
	}
	var mount []string
	for _, b := range h.Mount {
		mount = append(mount, b.Cid.String())
	}
	if !slices.Equal(mount, v.Mount) || h.Table.Len() != len(v.Blocks) {
		t.Errorf("it is mounted by %q, and has %d blocks", mount, h.Table.Len())
	}
	for _, text := range v.Blocks {
		c, err := cid.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := ipfs.Verify(c, find(t, codec, h.Table, b, c)); err != nil {
			t.Error(err)
		}
	}
}

// small returns blocks with these contents, raw and of dag-pb in turn.
func small(t *testing.T, contents ...string) (list []ipfs.Block) {
	t.Helper()
	for i, text := range contents {
		codec := uint64(cid.Raw)
		if i%2 == 1 {
			codec = cid.DagProtobuf
		}
		b, err := ipfs.NewBlock(codec, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

func vectors(t *testing.T) (list []vector) {
	codec := newCodec(t)
	good := func(name string, blocks, mount []ipfs.Block) vector {
		b, head := write(t, blocks, mount)
		v := vector{Name: name, Seed: hex.EncodeToString(b), Head: head}
		for _, b := range append(slices.Clone(blocks), mount...) {
			v.Blocks = append(v.Blocks, b.Cid.String())
		}
		for _, b := range mount {
			v.Mount = append(v.Mount, b.Cid.String())
		}
		return v
	}
	bad := func(name string, head []byte, at int64, word string) vector {
		return vector{Name: name, Seed: hex.EncodeToString(append(make([]byte, at), head...)), Head: at, Error: word}
	}
	mount := small(t, "index", "root")
	list = append(list,
		good("a seed", small(t, "one", "two", "three", "four"), mount),
		good("nothing but what the layer is mounted by", nil, mount),
		good("a block of no bytes", small(t, ""), mount),
		good("the same bytes, raw and as dag-pb", small(t, "same", "same"), mount),
	)
	frame := codec.compress([]byte("block"))
	prefix := func(n int) []byte { return make([]byte, n*prefixSize) }
	table := func(numbers ...byte) []byte { return append([]byte(tableMagic), numbers...) }
	length := byte(len(frame))
	right := sealed(codec, frame, append(table(1, length, 1, 5<<1), prefix(1)...))
	same := append(table(1, length, 9), bytes.Repeat([]byte{0}, 8)...)
	return append(list,
		bad("cut in front", right[1:], 0, "seed"),
		bad("cut at the end", right[:len(right)-1], 0, "seed"),
		bad("bytes after", append(slices.Clone(right), 0), 0, "seed"),
		bad("the head is elsewhere", right, 1, "seed"),
		bad("another version", sealed(codec, frame, append([]byte("ipcs seed 2\n"), 1, length, 1, 5<<1, 0, 0, 0, 0, 0, 0, 0, 0)), 0, "seed"),
		bad("no frames", sealed(codec, nil, table(0)), 0, "seed"),
		bad("a frame without blocks", sealed(codec, frame, table(1, length, 0)), 0, "seed"),
		bad("a frame without bytes", sealed(codec, nil, append(table(1, 0, 1, 5<<1), prefix(1)...)), 0, "seed"),
		bad("a frame of another length", sealed(codec, frame, append(table(1, length+1, 1, 5<<1), prefix(1)...)), 0, "seed"),
		bad("a block of another size", sealed(codec, frame, append(table(1, length, 1, 4<<1), prefix(1)...)), 0, "seed"),
		bad("a number that is longer than it must be", sealed(codec, frame, append(table(0x81, 0, length, 1, 5<<1), prefix(1)...)), 0, "seed"),
		bad("no prefix", sealed(codec, frame, table(1, length, 1, 5<<1)), 0, "seed"),
		bad("a prefix too many", sealed(codec, frame, append(table(1, length, 1, 5<<1), prefix(2)...)), 0, "seed"),
		bad("nine blocks that begin alike", sealed(codec, frame, append(append(same, 5<<1), prefix(9)...)), 0, "seed"),
		bad("a table that says to be larger than it may", sealed(codec, frame, append(append(table(1, length, 1, 5<<1), prefix(1)...), make([]byte, 64<<10)...)), 0, "limit"),
	)
}
