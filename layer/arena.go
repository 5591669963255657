package layer

import "hash/maphash"

// An arena holds values of one type by number. They lie in pieces that never move, so that
// pointers to them stay right, and what is held is not copied as it grows.
type arena[T any] struct {
	pieces [][]T
	n      int32
}

// arenaPiece is how many values a piece has.
const arenaPiece = 1024

func (a *arena[T]) add(v T) int32 {
	if a.n%arenaPiece == 0 {
		a.pieces = append(a.pieces, make([]T, 0, arenaPiece))
	}
	last := &a.pieces[len(a.pieces)-1]
	*last = append(*last, v)
	a.n++
	return a.n - 1
}

func (a *arena[T]) at(i int32) *T { return &a.pieces[i/arenaPiece][i%arenaPiece] }

// names holds path components, MaxName bytes each at most, one after the other.
type names struct{ pieces [][]byte }

// namePiece is the length of a piece; MaxMetadata bounds how many there are.
const namePiece = 64 << 10

// add returns where the name lies.
func (s *names) add(str string) uint32 {
	last := len(s.pieces) - 1
	if last < 0 || len(s.pieces[last])+len(str) > namePiece {
		s.pieces = append(s.pieces, make([]byte, 0, namePiece))
		last++
	}
	off := len(s.pieces[last])
	s.pieces[last] = append(s.pieces[last], str...)
	return uint32(last*namePiece + off)
}

// bytes returns a name, which must not be changed.
func (s *names) bytes(at uint32, length uint8) []byte {
	off := at % namePiece
	return s.pieces[at/namePiece][off : off+uint32(length)]
}

// A nameTable finds a node by its directory and its name: a hash table of numbers with open
// addressing. Nodes that were removed stay in it until it is made anew.
type nameTable struct {
	slots []int32 // number of a node and 1; 0 for none
	used  int
	seed  maphash.Seed
}

func (h *nameTable) hash(dir int32, name string) uint64 {
	const odd = 0x9e3779b97f4a7c15
	return maphash.String(h.seed, name) ^ uint64(dir)*odd
}

// slot returns where the node is, or where it would be. There is an empty slot always.
func (h *nameTable) slot(t *tree, dir int32, name string) *int32 {
	mask := uint64(len(h.slots) - 1)
	for i := h.hash(dir, name) & mask; ; i = (i + 1) & mask {
		s := &h.slots[i]
		if *s == 0 {
			return s
		}
		if n := t.nodes.at(*s - 1); n.parent == dir && string(t.nameOf(n)) == name {
			return s
		}
	}
}

// put makes a node the one of its name.
func (h *nameTable) put(t *tree, node int32) {
	if 4*(h.used+1) > 3*len(h.slots) {
		h.grow(t)
	}
	n := t.nodes.at(node)
	s := h.slot(t, n.parent, string(t.nameOf(n)))
	if *s == 0 {
		h.used++
	}
	*s = node + 1
}

// grow makes the table anew, with room for as many nodes again as are left.
func (h *nameTable) grow(t *tree) {
	old := h.slots
	size := 64
	for size < 2*t.entries {
		size *= 2
	}
	h.slots, h.used = make([]int32, size), 0
	for _, s := range old {
		if s != 0 && !t.nodes.at(s-1).removed {
			n := t.nodes.at(s - 1)
			*h.slot(t, n.parent, string(t.nameOf(n))) = s
			h.used++
		}
	}
}
