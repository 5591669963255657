package embedded_test

import (
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

func benchPair(b *testing.B, blocks []ipfs.Block) *embedded.Node {
	server := ipfstest.NewMemory()
	put(b, server, blocks...)
	_, cli := openPair(b, server, ipfstest.NewMemory())
	return cli
}

// BenchmarkFetchOne is the latency of blocks that are asked for one after the other,
// as a reader of small files does.
func BenchmarkFetchOne(b *testing.B) {
	blocks := ipfstest.Blocks(b, 5000, 4096)
	cli := benchPair(b, blocks)
	i := 0
	for b.Loop() {
		if n, err := fetchAll(b.Context(), cli, ipfstest.Cids(blocks[i%5000:i%5000+1])); n != 1 || err != nil {
			b.Fatal(n, err)
		}
		i++
	}
}

func benchFetch(b *testing.B, n, size int) {
	blocks := ipfstest.Blocks(b, n, size)
	cli := benchPair(b, blocks)
	b.SetBytes(int64(n) * int64(size))
	for b.Loop() {
		if got, err := fetchAll(b.Context(), cli, ipfstest.Cids(blocks)); got != n || err != nil {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkFetchLarge moves 300 MB in leaves of 1 MiB.
func BenchmarkFetchLarge(b *testing.B) { benchFetch(b, 286, ipfs.LeafSize) }

// BenchmarkFetchMedium moves 300 MB in blocks of 256 KiB.
func BenchmarkFetchMedium(b *testing.B) { benchFetch(b, 1145, 256<<10) }

// BenchmarkFetchSmall moves 16,000 blocks of 9,600 bytes: 154 MB.
func BenchmarkFetchSmall(b *testing.B) { benchFetch(b, 16000, 9600) }
