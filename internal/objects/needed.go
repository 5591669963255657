package objects

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// key is a block's digest, and whether it is a raw leaf: a CID in less memory.
type key [1 + digestSize]byte

func keyOf(c cid.Cid) (k key, ok bool) {
	digest, ok := digestOf(c)
	if isRaw(c) {
		k[0] = 1
	}
	copy(k[1:], digest)
	return k, ok
}

// A dagWalk visits all blocks of DAGs, as far as they are here.
type dagWalk struct {
	store *Store
	// seen holds what was visited, and with false other objects that hold visited leaves.
	seen map[key]bool
	// missing is called with what is not here. If it is nil, missing leaves are not even looked
	// for, and a damaged node is an error, since nobody knows what lies below it.
	missing func(cid.Cid)
	// here says whether an object is there.
	here func(object cid.Cid) bool
}

// needed returns the blocks that pins, but for those that are ignored, and whoever set the limit need, and the generation
// that they are of.
//
// It visits each node of the DAGs once; leaves are not read. A layer of 10,000 files has a few
// thousand nodes, a few microseconds each.
func (s *Store) needed(ignore func(ipfs.Pin) bool) (map[key]bool, uint64, error) {
	roots, keep, generation := s.room.roots()
	pins, err := s.pins("")
	if err != nil {
		return nil, 0, err
	}
	for _, p := range pins {
		if ignore != nil && ignore(p) {
			continue
		}
		roots = append(roots, p.Root)
	}
	if keep != nil {
		roots = append(roots, keep()...)
	}
	w := dagWalk{store: s, seen: make(map[key]bool), here: s.hasObject}
	for _, root := range roots {
		if err := w.walk(root); err != nil {
			return nil, 0, fmt.Errorf("find out what %s needs: %w", root, err)
		}
	}
	return w.seen, generation, nil
}

func (s *Store) hasObject(object cid.Cid) bool {
	_, err := os.Lstat(s.objectPath(object))
	return err == nil
}

// walk visits root and what lies below it.
func (w *dagWalk) walk(root cid.Cid) error {
	stack := []cid.Cid{root}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		k, ok := keyOf(c)
		if !ok || w.seen[k] {
			continue
		}
		w.seen[k] = true
		digest := string(k[1:])
		if isRaw(c) {
			if err := w.leaf(c, digest); err != nil {
				return err
			}
			continue
		}
		links, err := w.node(c, digest)
		if err != nil {
			return err
		}
		stack = append(stack, links...)
	}
	return nil
}

// node returns what a node links to.
func (w *dagWalk) node(c cid.Cid, digest string) ([]cid.Cid, error) {
	data, err := w.store.db.block(digest)
	if err != nil {
		return nil, err
	}
	if data == nil {
		if w.missing != nil {
			w.missing(c)
		}
		return nil, nil
	}
	if err := ipfs.Verify(c, data); err != nil {
		if w.missing == nil {
			return nil, fmt.Errorf(`a block in the database is damaged, run "ipcs-snapshotter check": %w`, err)
		}
		w.missing(c)
		return nil, nil
	}
	links, err := ipfs.Links(ipfs.Block{Cid: c, Data: data})
	if err != nil {
		return nil, nil // pinned, and no DAG: nothing is below it
	}
	return links, nil
}

// unseen is 1 if an object is not needed as far as is known, and 0 if it is.
func (w *dagWalk) unseen(object cid.Cid) int {
	k, ok := keyOf(object)
	if _, seen := w.seen[k]; ok && seen {
		return 0
	}
	return 1
}

// leaf finds a larger object that holds a leaf too: its loose copy may be about to go.
func (w *dagWalk) leaf(c cid.Cid, digest string) error {
	found := w.missing == nil || w.here(c)
	refs, err := w.store.refs(digest)
	if err != nil {
		return err
	}
	// One that is needed anyway will do, such as the file whose leaf this is.
	slices.SortStableFunc(refs, func(a, b ref) int { return cmp.Compare(w.unseen(a.object), w.unseen(b.object)) })
	for _, r := range refs {
		if !w.here(r.object) {
			continue
		}
		if k, ok := keyOf(r.object); ok && w.unseen(r.object) > 0 {
			w.seen[k] = false
		}
		found = true
		break
	}
	empty := sha256.Sum256(nil) // everybody has the block of no bytes
	if !found && digest != string(empty[:]) {
		w.missing(c)
	}
	return nil
}

// Needs says whether a pin with a name that counts needs a block.
func (s *Store) Needs(c cid.Cid, counts func(name string) bool) (bool, error) {
	k, ok := keyOf(c)
	if !ok {
		return false, nil
	}
	pins, err := s.pins("")
	if err != nil {
		return false, err
	}
	w := dagWalk{store: s, seen: make(map[key]bool), here: s.hasObject}
	for _, p := range pins {
		if !counts(p.Name) {
			continue
		}
		if err := w.walk(p.Root); err != nil {
			return false, fmt.Errorf("find out what %s needs: %w", p.Root, err)
		}
		if w.seen[k] {
			return true, nil
		}
	}
	return false, nil
}
