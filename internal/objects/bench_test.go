package objects_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// numbered returns n different blocks of this size.
func numbered(b *testing.B, codec uint64, n, size int) []ipfs.Block {
	b.Helper()
	blocks := make([]ipfs.Block, n)
	base := objectstest.Random(1, size)
	for i := range blocks {
		data := append([]byte(nil), base...)
		binary.LittleEndian.PutUint64(data, uint64(i))
		block, err := ipfs.NewBlock(codec, data)
		if err != nil {
			b.Fatal(err)
		}
		blocks[i] = block
	}
	return blocks
}

// BenchmarkPut stores 12,000 small blocks, or 512 MiB of leaves, one block a call from
// several goroutines, or in batches; /files writes the same bytes as plain files.
func BenchmarkPut(b *testing.B) {
	for _, kind := range []struct {
		name    string
		codec   uint64
		n, size int
	}{
		{"small-leaves", cid.Raw, 12_000, 6_000},
		{"small-nodes", cid.DagProtobuf, 12_000, 1_000},
		{"leaves", cid.Raw, 512, ipfs.LeafSize},
	} {
		blocks := numbered(b, kind.codec, kind.n, kind.size)
		for _, batch := range []int{1, 64} {
			for _, writers := range []int{1, 4} {
				b.Run(fmt.Sprintf("%s/batch=%d/writers=%d", kind.name, batch, writers), func(b *testing.B) {
					benchmarkPut(b, blocks, batch, writers)
				})
			}
		}
		b.Run(kind.name+"/files", func(b *testing.B) { benchmarkFiles(b, blocks) })
	}
}

func benchmarkPut(b *testing.B, blocks []ipfs.Block, batch, writers int) {
	b.SetBytes(int64(len(blocks) * len(blocks[0].Data)))
	for b.Loop() {
		b.StopTimer()
		s, err := objects.Open(b.TempDir(), objects.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := w * batch; i < len(blocks); i += writers * batch {
					if err := s.Put(b.Context(), blocks[i:min(i+batch, len(blocks))]...); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(blocks)*b.N)/b.Elapsed().Seconds(), "blocks/s")
}

func benchmarkFiles(b *testing.B, blocks []ipfs.Block) {
	b.SetBytes(int64(len(blocks) * len(blocks[0].Data)))
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		b.StartTimer()
		for _, block := range blocks {
			if err := os.WriteFile(filepath.Join(dir, block.Cid.String()), block.Data, 0o444); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(len(blocks)*b.N)/b.Elapsed().Seconds(), "blocks/s")
}

// BenchmarkPin costs one syncfs and one transaction.
func BenchmarkPin(b *testing.B) {
	s, err := objects.Open(b.TempDir(), objects.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	blocks := numbered(b, cid.DagProtobuf, 1, 1000)
	for b.Loop() {
		if err := s.Pin(b.Context(), ipfs.Pin{Root: blocks[0].Cid, Name: "bench"}); err != nil {
			b.Fatal(err)
		}
	}
}
