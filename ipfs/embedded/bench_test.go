package embedded_test

import (
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

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

// goTree returns the files of the Go tree below dir, as leaves, some 50 MB of them.
func goTree(b *testing.B, dir string) (blocks []ipfs.Block, bytes int64) {
	b.Helper()
	root, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for leaf := range slices.Chunk(data, ipfs.LeafSize) {
			block, err := ipfs.NewBlock(cid.Raw, leaf)
			if err != nil {
				return err
			}
			blocks = append(blocks, block)
		}
		if bytes += int64(len(data)); bytes > 50<<20 {
			return fs.SkipAll
		}
		return err
	})
	if err != nil || len(blocks) == 0 {
		b.Fatal(len(blocks), err)
	}
	return blocks, bytes
}

// benchTree moves real files, and says how much smaller they were on the way.
func benchTree(b *testing.B, dir string) {
	blocks, bytes := goTree(b, dir)
	cli := benchPair(b, blocks)
	b.SetBytes(bytes)
	for b.Loop() {
		if got, err := fetchAll(b.Context(), cli, unique(blocks)); err != nil {
			b.Fatal(got, err)
		}
	}
	if t := cli.Traffic(); t.ReceivedWire > 0 {
		b.ReportMetric(float64(t.ReceivedBlocks)/float64(t.ReceivedWire), "blocks/wire")
	}
}

func unique(blocks []ipfs.Block) []cid.Cid {
	cids := ipfstest.Cids(blocks)
	slices.SortFunc(cids, func(a, b cid.Cid) int { return cmp.Compare(a.KeyString(), b.KeyString()) })
	return slices.Compact(cids)
}

// BenchmarkFetchSources moves 50 MB of small text files.
func BenchmarkFetchSources(b *testing.B) { benchTree(b, "src") }

// BenchmarkFetchBinaries moves 50 MB of programs.
func BenchmarkFetchBinaries(b *testing.B) { benchTree(b, "pkg/tool") }
