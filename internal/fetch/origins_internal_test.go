package fetch

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

func numberedLeaf(i int) cid.Cid {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return ipfs.RawCid(string(sum[:]))
}

// TestOriginsAreBounded forgets the leaves that came long ago, and no others.
func TestOriginsAreBounded(t *testing.T) {
	o := newOrigins()
	const n = 3 * maxOrigins
	for i := range n {
		o.add(numberedLeaf(i), "peer")
	}
	if kept := len(o.young) + len(o.old); kept > 2*maxOrigins {
		t.Errorf("%d leaves are remembered", kept)
	}
	if _, ok := o.of(numberedLeaf(0)); ok {
		t.Error("the first is still known")
	}
	for i := n - maxOrigins; i < n; i++ {
		if peer, ok := o.of(numberedLeaf(i)); !ok || peer != "peer" {
			t.Fatalf("leaf %d of %d is not known", i, n)
		}
	}
}

// TestOriginsOfManyPeers tells those peers together that are too many.
func TestOriginsOfManyPeers(t *testing.T) {
	o := newOrigins()
	const peers = 300
	for i := range 2 * peers {
		o.add(numberedLeaf(i), fmt.Sprint(i%peers))
	}
	for i := range 2 * peers {
		want := fmt.Sprint(i % peers)
		if i%peers >= otherPeer {
			want = OtherPeers
		}
		if peer, ok := o.of(numberedLeaf(i)); !ok || peer != want {
			t.Errorf("leaf %d came from %q, not from %q", i, peer, want)
		}
	}
	if len(o.peers) > otherPeer || len(o.numbers) > otherPeer {
		t.Errorf("%d peers have numbers", len(o.peers))
	}
}

// BenchmarkOrigins is what remembering costs a leaf that is fetched.
func BenchmarkOrigins(b *testing.B) {
	o := newOrigins()
	leaves := make([]cid.Cid, 4096)
	for i := range leaves {
		leaves[i] = numberedLeaf(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		o.add(leaves[i%len(leaves)], "peer")
		i++
	}
}
