package content

import (
	"crypto/sha256"
	"hash"

	"github.com/hinshun/ipcs/ipfs"
)

// chunks hashes what is written, chunk by chunk. One goroutine may use it at a time.
type chunks struct {
	hash   hash.Hash
	filled int64 // of the chunk that is being hashed
	size   int64
	leaves []byte // digests of those before it
}

func newChunks() *chunks { return &chunks{hash: sha256.New()} }

func (c *chunks) write(p []byte) {
	each := ipfs.LayoutBlob.LeafSize()
	c.size += int64(len(p))
	for len(p) > 0 {
		if c.filled == each {
			c.next()
		}
		n := min(int64(len(p)), each-c.filled)
		c.hash.Write(p[:n]) // never fails
		c.filled += n
		p = p[n:]
	}
}

func (c *chunks) next() {
	c.leaves = c.hash.Sum(c.leaves)
	c.hash.Reset()
	c.filled = 0
}

// file is what was written. Nothing may be written after it.
func (c *chunks) file() (ipfs.File, error) {
	f := ipfs.File{Size: c.size, Layout: ipfs.LayoutBlob}
	c.next()
	if f.NumLeaves() == 1 {
		f.Cid = ipfs.RawCid(string(c.leaves))
		return f, nil
	}
	f.Leaves = string(c.leaves)
	var err error
	f.Cid, err = f.Build(nil)
	return f, err
}
