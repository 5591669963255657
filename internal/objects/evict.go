package objects

import (
	"cmp"
	"container/heap"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// maxPasses bounds how often it is settled anew what may go, because something has come to be
// needed or used meanwhile.
const maxPasses = 8

// evictSlice is how many objects are removed at a time, while nothing can be added.
const evictSlice = 64

// A victim is an object that may be evicted, or a file in the making.
type victim struct {
	object  cid.Cid
	size    int64
	used    time.Time // at the latest; Free: when it was no longer
	partial *Partial  // nil for an object
	garbage bool      // Collect wants it gone
}

// victims is a heap, the one that was used last on top.
type victims []victim

func (v victims) Len() int           { return len(v) }
func (v victims) Less(i, j int) bool { return v[i].used.After(v[j].used) }
func (v victims) Swap(i, j int)      { v[i], v[j] = v[j], v[i] }
func (v *victims) Push(x any)        { *v = append(*v, x.(victim)) }
func (v *victims) Pop() any {
	last := len(*v) - 1
	x := (*v)[last]
	*v = (*v)[:last]
	return x
}

// evict removes objects that nothing needs, those first that were not used for longest,
// until so many bytes are free. It returns how many are. The caller holds room.batch.
//
// What is needed is found out first, then which objects are there. Whatever comes to be
// needed after that says so by a new generation, or is in room.put or in recent, and all of
// that is looked at again while nothing can be added: so nothing is removed that a caller
// was told is there and kept.
func (s *Store) evict(need int64) (freed int64, err error) {
	for range maxPasses {
		if freed >= need || s.isClosing() {
			break
		}
		s.writeRecency()
		needed, generation, err := s.needed(nil)
		if err != nil {
			return freed, err
		}
		list, err := s.oldest(need-freed, needed)
		if err != nil {
			return freed, err
		}
		n, skipped, ok, err := s.remove(list, generation, nil)
		freed += n
		if n > 0 {
			s.room.batches.Add(1)
			s.gone()
		}
		if err != nil || n == 0 && !skipped && ok {
			return freed, err
		}
	}
	return freed, nil
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// oldest returns objects of at least so many bytes together, as far as there are, that were
// not used for longest, in this order, and none that are needed.
func (s *Store) oldest(bytes int64, needed map[key]bool) ([]victim, error) {
	var list victims
	var total int64
	add := func(v victim) {
		heap.Push(&list, v)
		total += onDisk(v.size)
		for total-onDisk(list[0].size) >= bytes {
			total -= onDisk(heap.Pop(&list).(victim).size)
		}
	}
	idle := time.Now().Add(-idleTime)
	s.parts.each(func(p *Partial) {
		if size, used := p.inUse(); size > 0 && !used.After(idle) {
			add(victim{object: p.file.Cid, size: size, used: used, partial: p})
		}
	})
	err := s.walk(time.Time{}, func(path string, info os.FileInfo) error {
		c, err := cid.Decode(filepath.Base(path))
		if err != nil {
			return nil // none of ours
		}
		k, ok := keyOf(c)
		if _, is := needed[k]; is || !ok || info.Size() == 0 || s.room.wasPutLately(k) {
			return nil
		}
		add(victim{object: c, size: info.Size(), used: lastUse(info)})
		return nil
	})
	slices.SortFunc(list, func(a, b victim) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.object.KeyString(), b.object.KeyString()))
	})
	return list, err
}

// lastUse is when an object was used last, as far as that was written down, or made.
func lastUse(info os.FileInfo) time.Time {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.ModTime()
	}
	if used := time.Unix(st.Atim.Unix()); used.After(info.ModTime()) {
		return used
	}
	return info.ModTime()
}

// remove removes objects, but for those that were used or put meanwhile, which skipped tells
// of, and only as long as nothing has come to be needed that was not, else ok is false. It ends
// early when done closes.
func (s *Store) remove(list []victim, generation uint64, done <-chan struct{}) (freed int64, skipped, ok bool, err error) {
	for slice := range slices.Chunk(list, evictSlice) {
		select {
		case <-done:
			return freed, skipped, true, nil
		case <-s.closing:
			return freed, false, true, nil
		default:
		}
		n, some, ok, err := s.removeSlice(slice, generation)
		freed += n
		if skipped = skipped || some; err != nil || !ok {
			return freed, skipped, ok, err
		}
	}
	return freed, skipped, true, nil
}

// removeSlice removes objects and then the references into them. Between the two a crash
// leaves references to nothing, which Open removes.
func (s *Store) removeSlice(list []victim, generation uint64) (freed int64, skipped, ok bool, err error) {
	s.gate.Lock()
	defer s.gate.Unlock()
	if !s.room.isGeneration(generation) {
		return 0, false, false, nil
	}
	var entries []entry
	for _, v := range list {
		if v.partial != nil {
			freed += v.partial.empty(v.used)
			continue
		}
		info, err := os.Lstat(s.objectPath(v.object))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || s.recent.has(v.object) || !s.mayGo(v, info) {
			skipped = true
			continue
		}
		refs, err := s.refsInto(v.object)
		if err != nil {
			return freed, skipped, true, errors.Join(err, s.db.flush(entries...))
		}
		handle := handleOf(s.objectPath(v.object))
		if err := os.Remove(s.objectPath(v.object)); errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return freed, skipped, true, errors.Join(err, s.db.flush(entries...))
		}
		entries = append(entries, refs...)
		freed += onDisk(v.size)
		s.account(-1, v.size)
		s.room.objects.Add(1)
		s.room.bytes.Add(v.size)
		s.hold(handle, v.size)
	}
	if len(entries) > 0 {
		err = s.db.flush(entries...)
	}
	return freed, skipped, true, err
}

// mayGo says whether it is still so that an object may be removed.
func (s *Store) mayGo(v victim, info os.FileInfo) bool {
	if v.garbage {
		return s.isGarbage(v.object, info, v.used)
	}
	return s.mayFree(v.object, info, v.used)
}

// refsInto returns entries that remove the references into an object, as the nodes of the
// file tell them.
func (s *Store) refsInto(object cid.Cid) ([]entry, error) {
	if isRaw(object) {
		return nil, nil
	}
	var entries []entry
	seen := make(map[cid.Cid]bool)
	stack := []cid.Cid{object}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		digest, ok := digestOf(c)
		if !ok || seen[c] {
			continue
		}
		seen[c] = true
		if isRaw(c) {
			e := ref{object: object}.entry(digest)
			e.value = nil
			entries = append(entries, e)
			continue
		}
		data, err := s.db.block(digest)
		if err != nil {
			return nil, err
		}
		links, err := ipfs.Links(ipfs.Block{Cid: c, Data: data})
		if err == nil { // what lies below a damaged node stays a reference to nothing
			stack = append(stack, links...)
		}
	}
	return entries, nil
}
