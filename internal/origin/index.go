package origin

import (
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/seed"
)

// maxIndexed bounds the blocks of all tables that are here together, each of which takes 40 to 60 bytes of memory. Beyond
// it, the tables go that were not used for longest, and are read again when something is in none that is here.
const maxIndexed = 4 << 20

// errDropped says that a table had to make room, so that tables which do not fit together are not read again and again.
var errDropped = fmt.Errorf("its table had to make room: %w", ErrAway)

// An index finds blocks in all tables that are here, by the first bytes of their digests. Origin.mu guards it.
type index struct {
	first  map[uint64]ref
	more   map[uint64][]ref // further blocks that begin alike
	tables map[int32]*opened
	last   int32
	blocks int
	limit  int   // of blocks
	uses   int64 // counts them, to know which table was not used for longest
}

// A ref is a block of a table.
type ref struct{ table, number int32 }

// A found block is where one may be.
type found struct {
	*opened
	seed.Place
}

func newIndex(limit int) index {
	return index{limit: limit, first: map[uint64]ref{}, more: map[uint64][]ref{}, tables: map[int32]*opened{}}
}

// add gives a seed its table.
func (x *index) add(s *opened, t *seed.Table) {
	x.drop(s)
	for x.blocks > 0 && x.blocks+t.Len() > x.limit {
		x.dropOldest()
	}
	x.last++
	s.table, s.number = t, x.last
	x.tables[s.number] = s
	x.blocks += t.Len()
	x.use(s)
	for n, prefix := range t.Prefixes() {
		r := ref{s.number, int32(n)}
		if _, taken := x.first[prefix]; taken {
			x.more[prefix] = append(x.more[prefix], r)
		} else {
			x.first[prefix] = r
		}
	}
}

// drop forgets the table of a seed, if it is here.
func (x *index) drop(s *opened) {
	if s.table == nil {
		return
	}
	for _, prefix := range s.table.Prefixes() {
		x.dropPrefix(prefix, s.number)
	}
	x.blocks -= s.table.Len()
	delete(x.tables, s.number)
	s.table = nil
}

func (x *index) dropPrefix(prefix uint64, table int32) {
	rest := slices.DeleteFunc(x.more[prefix], func(r ref) bool { return r.table == table })
	if r, ok := x.first[prefix]; ok && r.table == table {
		delete(x.first, prefix)
		if len(rest) > 0 {
			x.first[prefix], rest = rest[0], rest[1:]
		}
	}
	if len(rest) > 0 {
		x.more[prefix] = rest
	} else {
		delete(x.more, prefix)
	}
}

func (x *index) dropOldest() {
	var oldest *opened
	for _, s := range x.tables {
		if oldest == nil || s.used < oldest.used {
			oldest = s
		}
	}
	x.drop(oldest)
	oldest.failed, oldest.again = errDropped, time.Now().Add(lastPause)
}

// use notes that a table is used.
func (x *index) use(s *opened) {
	x.uses++
	s.used = x.uses
}

// find returns the places where a block may be.
func (x *index) find(c cid.Cid) (places []found) {
	prefix, ok := seed.Prefix(c)
	if !ok {
		return nil
	}
	r, ok := x.first[prefix]
	if !ok {
		return nil
	}
	for _, r := range append([]ref{r}, x.more[prefix]...) {
		s := x.tables[r.table]
		if p, ok := s.table.At(int(r.number), c); ok {
			places = append(places, found{s, p})
		}
	}
	return places
}
