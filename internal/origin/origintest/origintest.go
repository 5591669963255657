// Package origintest makes images with seeds, and places that have them and fail as they are told.
//
// A Place may be used by several goroutines.
package origintest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// An Image is one with seeds.
type Image struct {
	Record cid.Cid
	Image  *layer.Image
	Layers [][]ipfs.Block           // blocks of each layer, its root first
	Blobs  map[digest.Digest][]byte // seeds, record, roots
}

// NewImage makes an image whose layers have so many blocks each of up to max bytes, which do not compress. The first of its
// blocks are those that an image of fewer has.
func NewImage(t testing.TB, layers, blocks, max int) *Image {
	t.Helper()
	codec, err := seed.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(layers), 1))
	im := &Image{Image: &layer.Image{}, Blobs: map[digest.Digest][]byte{}}
	for range layers {
		root := newBlock(t, cid.DagProtobuf, random(r, 100))
		var list []ipfs.Block
		for range blocks {
			list = append(list, newBlock(t, cid.Raw, random(r, 1+r.IntN(max))))
		}
		var out bytes.Buffer
		head, err := seed.Write(t.Context(), codec, &out, all(list), []ipfs.Block{root})
		if err != nil {
			t.Fatal(err)
		}
		s := &layer.Seed{Digest: im.add(out.Bytes()), Size: int64(out.Len()), Head: head}
		im.Image.Layers = append(im.Image.Layers, layer.ImageLayer{Digest: im.add(root.Data), Block: root.Data, Seed: s})
		im.Layers = append(im.Layers, append([]ipfs.Block{root}, list...))
	}
	record, err := layer.EncodeImage(im.Image)
	if err != nil {
		t.Fatal(err)
	}
	im.Record = newBlock(t, cid.Raw, record).Cid
	im.add(record)
	return im
}

func (im *Image) add(data []byte) digest.Digest {
	d := digest.FromBytes(data)
	im.Blobs[d] = data
	return d
}

func newBlock(t testing.TB, codec uint64, data []byte) ipfs.Block {
	t.Helper()
	b, err := ipfs.NewBlock(codec, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n]
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

// ErrPlace is what a Place fails with.
var ErrPlace = errors.New("the place fails")

// A Place has the blobs of an image.
type Place struct {
	Name  string
	Blobs map[digest.Digest][]byte

	mu       sync.Mutex
	requests []Request
	change   func(Request, []byte) ([]byte, error)
}

// A Request is one that a Place was asked.
type Request struct {
	Digest digest.Digest
	Off, N int64
}

// String implements fmt.Stringer.
func (p *Place) String() string { return p.Name }

// Change has fn change what is answered from now on, or fail it.
func (p *Place) Change(fn func(r Request, answer []byte) ([]byte, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = fn
}

// Requests returns what it was asked since the last call.
func (p *Place) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests
	p.requests = nil
	return r
}

// Range is that of origin.Place.
func (p *Place) Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Request{d, off, n}
	p.requests = append(p.requests, r)
	data, ok := p.Blobs[d]
	if !ok {
		return nil, ErrPlace
	}
	if n >= 0 {
		data = data[off:min(off+n, int64(len(data)))]
	}
	data = bytes.Clone(data)
	var err error
	if p.change != nil {
		if data, err = p.change(r, data); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(bytes.NewReader(data)), ctx.Err()
}
