package layer

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// small is a layer of all kinds of blocks that a file of one leaf has.
func small(t *testing.T) (*Layer, *memory, digest.Digest) {
	t.Helper()
	tarball := layertest.Tar(t, text("d/a", "same"), text("x", "first"), text("x", "2"), text("e", ""), sym("s", "d/a"), hard("h", "x"))
	l, m := convert(t, tarball)
	return l, m, digest.FromBytes(tarball)
}

// eachBit calls f with every bit of data changed in turn; of what is long, with so many bits
// that they are of all bytes, or of most stretches.
func eachBit(data []byte, most int, f func(changed []byte, bit int)) {
	step := 1 + 8*len(data)/most
	if step%2 == 0 {
		step++ // and so of all places in a byte
	}
	for bit := 0; bit < 8*len(data); bit += step {
		changed := bytes.Clone(data)
		changed[bit/8] ^= 1 << (bit % 8)
		f(changed, bit)
	}
}

// TestVerifyEveryBit changes every bit of every block, with a source that does not verify:
// even that is found out.
func TestVerifyEveryBit(t *testing.T) {
	l, m, _ := small(t)
	spoilBlocks(t, l, m, 1<<20)
}

// TestVerifyLargeBits changes some bits of a layer with a node above leaves.
func TestVerifyLargeBits(t *testing.T) {
	l, m := convert(t, layertest.Tar(t, text("large", strings.Repeat("l", ipfs.LeafSize+1))))
	spoilBlocks(t, l, m, 8)
}

// spoilBlocks changes bits of each block, about so many at most, and verifies the layer.
func spoilBlocks(t *testing.T, l *Layer, m *memory, most int) {
	t.Helper()
	for _, c := range slices.Collect(maps.Keys(m.blocks)) {
		data, passed := m.blocks[c], 0
		if c.Equals(l.Root.Cid) {
			continue // verify takes that which l holds
		}
		eachBit(data, most, func(changed []byte, _ int) {
			m.blocks[c] = changed
			if _, err := verify(t, m, l.Root); err == nil {
				passed++
			}
		})
		if m.blocks[c] = data; passed > 0 {
			t.Errorf("block %s (%.30q…) with another bit passes %d times", c, data, passed)
		}
	}
	if _, err := verify(t, m, l.Root); err != nil {
		t.Error(err)
	}
}

// TestVerifyEveryBitOfParts changes every bit of the index, of the block at the top of rootfs
// and of shadowed and of the layer root, and some hundred bits of the tar-split; and makes all
// hashes and sizes right again. What that gives is a layer of its own, which is refused,
// or has another tar.
func TestVerifyEveryBitOfParts(t *testing.T) {
	l, m, diffID := small(t)
	raw, err := EncodeIndex(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	check := func(part string, bit int, root ipfs.Block) {
		if proof, err := verify(t, m, root); err == nil && proof.DiffID == diffID {
			t.Errorf("%s with bit %d changed passes", part, bit)
		}
	}
	good := 0
	eachBit(raw, 1<<20, func(changed []byte, bit int) {
		if _, err := DecodeIndex(changed); err == nil {
			good++
			check("the index", bit, relinked(t, m, l, linkIndex, putFile(t, m, framed(changed))))
		}
	})
	if good < 100 {
		t.Errorf("only %d changed indexes can be read", good)
	}
	split := unzipped(t, m, l.TarSplit)
	eachBit(split, 500, func(changed []byte, bit int) {
		check("the tar-split", bit, relinked(t, m, l, linkTarSplit, putFile(t, m, framed(changed))))
	})
	for name, c := range map[string]cid.Cid{linkRootfs: l.Rootfs, linkShadowed: l.Shadowed} {
		eachBit(m.blocks[c], 1<<20, func(changed []byte, bit int) {
			check(name, bit, relinked(t, m, l, name, putNode(t, m, changed).Cid))
		})
	}
	eachBit(l.Root.Data, 1<<20, func(changed []byte, bit int) { check("the root", bit, putNode(t, m, changed)) })
}

// framed is a zstd frame of bytes as they are.
func framed(data []byte) []byte {
	const window128K = (17 - 10) << 3
	return zstdFrame([]byte{0, window128K}, zstdBlock{data: data})
}

// relinked is the root of a layer with another block behind one link, and its right size.
func relinked(t *testing.T, m *memory, l *Layer, name string, c cid.Cid) ipfs.Block {
	t.Helper()
	links, _, err := parseNode(string(l.Root.Data))
	if err != nil {
		t.Fatal(err)
	}
	for i := range links {
		if k := &links[i]; k.name == name {
			k.cid, k.tsize = c, uint64(len(m.blocks[c]))
			if below, err := directorySize(context.Background(), m, *k); err == nil && c.Type() == cid.DagProtobuf {
				k.tsize = below
			}
		}
	}
	return putNode(t, m, directoryNode(links))
}
