package embedded_test

import (
	"fmt"
	"testing"

	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// BenchmarkWindow moves real files with more and fewer wants on the wire, and bytes in flight;
// 512 and 32 MiB are what nodes have. docs/tuning.md has what came out.
func BenchmarkWindow(b *testing.B) {
	for name, dir := range map[string]string{"sources": "src", "binaries": "pkg/tool"} {
		blocks, bytes := goTree(b, dir)
		for _, wants := range []int64{8, 32, 128, 512, 2048} {
			b.Run(fmt.Sprintf("%s/%d", name, wants), func(b *testing.B) {
				server := ipfstest.NewMemory()
				put(b, server, blocks...)
				_, cli := openPair(b, server, ipfstest.NewMemory())
				embedded.SetWindow(cli, wants, wants<<16)
				b.SetBytes(bytes)
				for b.Loop() {
					if got, err := fetchAll(b.Context(), cli, unique(blocks)); err != nil {
						b.Fatal(got, err)
					}
				}
			})
		}
	}
}
