package objects

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// checkChunk is how many records are read in one transaction.
	checkChunk = 1000
	// maxMissing bounds the missing blocks that are named for a pin.
	maxMissing = 16
)

// listed sees that the leaves of a file that is right can be found in it.
func (c *check) listed(f ipfs.File) error {
	if f.Leaves == "" {
		return nil
	}
	var lacking int64
	seen := make(map[string]bool)
	for i := range f.NumLeaves() {
		digest, _ := digestOf(f.Leaf(i))
		if seen[digest] {
			continue
		}
		seen[digest] = true
		e := ref{f.Cid, i, f.Layout}.entry(digest)
		value, err := c.store.db.get(e.bucket, string(e.key))
		if err != nil {
			return err
		}
		if value == nil {
			lacking++
		}
	}
	if lacking == 0 {
		return nil
	}
	c.mu.Lock()
	c.report.Unlisted += lacking
	c.mu.Unlock()
	if c.opts.DryRun {
		return nil
	}
	return c.store.list(f)
}

// list writes the references into an object, if it is still there.
func (s *Store) list(f ipfs.File) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if !s.hasObject(f.Cid) {
		return nil
	}
	loose, err := s.record(f)
	if err != nil {
		return err
	}
	if s.doomed.add(loose...); len(loose) > 0 {
		s.room.moved()
	}
	s.markDirty()
	return nil
}

// blocks hashes the blocks in the database.
func (c *check) blocks(ctx context.Context) error {
	var last []byte
	for {
		if err := c.stopped(ctx); err != nil {
			return err
		}
		var bad []entry
		n := 0
		err := c.store.db.scanAfter(bucketBlocks, last, func(key, value []byte) bool {
			last = append(last[:0], key...)
			if sum := sha256.Sum256(value); string(sum[:]) != string(key) {
				bad = append(bad, entry{bucket: bucketBlocks, key: append([]byte{}, key...)})
				c.report.Damaged = append(c.report.Damaged, Damage{blockName(key), int64(len(value)), "a block in the database: " + ipfs.ErrHash.Error()})
			}
			n++
			return n < checkChunk
		})
		if err != nil {
			return err
		}
		c.report.Blocks += int64(n)
		if len(bad) > 0 && !c.opts.DryRun {
			if err := c.store.db.flush(bad...); err != nil {
				return err
			}
		}
		if n < checkChunk {
			return nil
		}
	}
}

// blockName is the CID of a node with this digest.
func blockName(digest []byte) string {
	hash, err := mh.Encode(digest, mh.SHA2_256)
	if err != nil || len(digest) != digestSize {
		return "record " + hex.EncodeToString(digest)
	}
	return cid.NewCidV1(cid.DagProtobuf, hash).String()
}

// references finds references to objects that are not there.
func (c *check) references(context.Context) error {
	var err error
	if c.opts.DryRun {
		c.report.Dangling, err = c.store.countDangling()
	} else {
		c.report.Dangling, err = c.store.removeDangling()
	}
	return err
}

// dangling returns the references to objects that are not there, or not there yet.
func (s *Store) dangling() ([]entry, error) {
	var found []entry
	there := make(map[string]bool)
	err := s.db.scan(bucketRefs, nil, func(key, _ []byte) bool {
		if len(key) != 2*digestSize {
			found = append(found, entry{bucket: bucketRefs, key: append([]byte{}, key...)})
			return true
		}
		object := string(key[digestSize:])
		is, known := there[object]
		if !known {
			is = s.hasObject(fileCid(object))
			there[object] = is
		}
		if !is {
			found = append(found, entry{bucket: bucketRefs, key: append([]byte{}, key...)})
		}
		return true
	})
	return found, err
}

// fileCid is the CID of a file of several leaves with this digest.
func fileCid(digest string) cid.Cid {
	leaf := ipfs.RawCid(digest)
	return cid.NewCidV1(cid.DagProtobuf, leaf.Hash())
}

// removeDangling removes the references to objects that are not there.
func (s *Store) removeDangling() (int64, error) {
	found, err := s.dangling()
	if err != nil || len(found) == 0 {
		return 0, err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	gone := s.confirmed(found)
	if len(gone) == 0 {
		return 0, nil
	}
	return int64(len(gone)), s.db.flush(gone...)
}

// countDangling counts them and leaves them.
func (s *Store) countDangling() (int64, error) {
	found, err := s.dangling()
	if err != nil || len(found) == 0 {
		return 0, err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	return int64(len(s.confirmed(found))), nil
}

// confirmed returns those references that lead to nothing. The caller holds the gate, since
// the references into a file are written before it becomes an object.
func (s *Store) confirmed(found []entry) []entry {
	var gone []entry
	for _, e := range found {
		if len(e.key) != 2*digestSize || !s.hasObject(fileCid(string(e.key[digestSize:]))) {
			gone = append(gone, e)
		}
	}
	return gone
}

// leftovers finds partial files that nobody writes.
func (c *check) leftovers(context.Context) error {
	dir := filepath.Join(c.store.dir, partialName)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if _, used := c.store.temps.Load(path); used {
			continue
		}
		if _, err := os.Lstat(path); err != nil {
			continue // it has just become an object
		}
		c.report.Leftovers++
		if c.opts.DryRun {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			c.report.Unremoved++
		}
	}
	return nil
}

// pins looks for everything that pins need.
func (c *check) pins(ctx context.Context) error {
	pins, err := c.store.pins("")
	if err != nil {
		return err
	}
	lost := false
	all := dagWalk{store: c.store, seen: make(map[key]bool), here: c.here, missing: func(cid.Cid) { lost = true }}
	for _, p := range pins {
		if err := errors.Join(c.stopped(ctx), all.walk(p.Root)); err != nil {
			return err
		}
	}
	if !lost {
		return nil
	}
	// Whose is it? Pins share blocks, so each is looked at by itself.
	for _, p := range pins {
		loss := Loss{Root: p.Root.String(), Pin: p.Name}
		one := dagWalk{store: c.store, seen: make(map[key]bool), here: c.here, missing: func(m cid.Cid) {
			loss.Blocks++
			if len(loss.Missing) < maxMissing {
				loss.Missing = append(loss.Missing, m.String())
			}
		}}
		if err := errors.Join(c.stopped(ctx), one.walk(p.Root)); err != nil {
			return err
		}
		if loss.Blocks > 0 {
			c.report.Lost = append(c.report.Lost, loss)
		}
	}
	return nil
}

// here says whether an object is there and right.
func (c *check) here(object cid.Cid) bool {
	return !c.bad[object] && c.store.hasObject(object)
}
