//go:build linux

package snapshotter_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
)

// lie publishes a layer like root, but for the size of its file that name ends in.
func lie(t *testing.T, at *ipfstest.Memory, root ipfs.Block, name string, size int64) ipfs.Block {
	t.Helper()
	l, err := layer.Open(t.Context(), at, root.Cid)
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Index.Entries {
		if e := &l.Index.Entries[i]; e.Name == name {
			e.Size = size
		}
	}
	raw, err := layer.EncodeIndex(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	// A frame of zstd with its size, and one block that is not compressed.
	frame := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, uint32(len(raw)))
	header := uint32(len(raw))<<3 | 1
	frame = append(frame, byte(header), byte(header>>8), byte(header>>16))
	index, err := ipfs.NewBlock(cid.Raw, append(frame, raw...))
	if err != nil {
		t.Fatal(err)
	}
	liar, err := ipfs.NewBlock(cid.DagProtobuf, bytes.Replace(root.Data, l.IndexCid.Bytes(), index.Cid.Bytes(), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := at.Put(t.Context(), index, liar); err != nil {
		t.Fatal(err)
	}
	return liar
}

const claimedBody = "what two images have, and one of them lies about\n"

// claims is a lab with two images that differ on the size of one file.
type claims struct {
	*lab
	publisher    *ipfstest.Memory
	honest, liar ipfs.Block
}

func newClaims(t *testing.T, size int64) *claims {
	l, publisher, _ := newLazyLab(t)
	elsewhere := *l
	elsewhere.node, elsewhere.config.ObjectsDir = publisher, t.TempDir()
	honest := elsewhere.convert(tarOf(t, []entry{file("claimed", claimedBody, 0o644)}))
	return &claims{lab: l, publisher: publisher, honest: honest, liar: lie(t, publisher, honest, "claimed", size)}
}

// run mounts an image and returns the path of its file.
func (c *claims) run(root ipfs.Block) string {
	_, path := c.active(c.Snapshotter, c.pull(chain{}, root).parent)
	return filepath.Join(path, "claimed")
}

// mustRead reads as most programs do and as some do: through a mapping.
func (c *claims) mustRead(path string) {
	c.t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != claimedBody {
		c.t.Errorf("the honest image reads %q, %v", b, err)
	}
	f, err := os.Open(path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, len(claimedBody), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		c.t.Fatal(err)
	}
	if string(m) != claimedBody {
		c.t.Errorf("the honest image maps %q", m)
	}
	if err := unix.Munmap(m); err != nil {
		c.t.Error(err)
	}
}

// open opens a file without reading it, which tells the kernel its size.
func (c *claims) open(path string) {
	c.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { f.Close() })
}

// TestSizesAreSettledByContent has an image lie about the size of a file, which the CID of
// a file of one leaf does not prove.
func TestSizesAreSettledByContent(t *testing.T) {
	for name, size := range map[string]int64{"smaller": 10, "larger": 5000, "much larger": ipfs.LeafSize} {
		t.Run(name, func(t *testing.T) {
			t.Run("liar opens first", func(t *testing.T) {
				c := newClaims(t, size)
				c.open(c.run(c.liar))
				c.mustRead(c.run(c.honest))
			})
			t.Run("liar reads first", func(t *testing.T) {
				c := newClaims(t, size)
				path := c.run(c.liar)
				if b, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
					t.Errorf("the liar reads %q, %v", b, err)
				}
				c.mustRead(c.run(c.honest))
			})
			t.Run("both are mounted first", func(t *testing.T) {
				c := newClaims(t, size)
				liar, honest := c.run(c.liar), c.run(c.honest)
				c.open(liar)
				c.mustRead(honest)
			})
			t.Run("honest opens first", func(t *testing.T) {
				c := newClaims(t, size)
				honest := c.run(c.honest)
				c.open(honest)
				c.open(c.run(c.liar))
				c.mustRead(honest)
			})
			t.Run("object is here", func(t *testing.T) {
				c := newClaims(t, size)
				honest := c.run(c.honest)
				c.mustRead(honest)
				// No more and no less than what the CID proves.
				if b, err := os.ReadFile(c.run(c.liar)); err == nil && !strings.HasPrefix(claimedBody, string(b)) {
					t.Errorf("the liar reads %q", b)
				}
				c.mustRead(honest)
			})
		})
	}
}

// TestSizesCannotBeSettled takes the content away: whoever looks the file up is told so, and
// succeeds later.
func TestSizesCannotBeSettled(t *testing.T) {
	c := newClaims(t, 10)
	liar, honest := c.run(c.liar), c.run(c.honest)
	c.node.Disconnect(c.publisher)
	for _, path := range []string{liar, honest} {
		if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
			t.Errorf("read of what is nowhere: %v", err)
		}
	}
	c.node.Connect(c.publisher)
	c.mustRead(honest)
}
