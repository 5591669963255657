package compare

import (
	"encoding/binary"
	"math/bits"
)

// A set is a set of images, by its number in a family: 0 is the empty one.
type set uint32

// A family numbers sets of images. It is used by one goroutine at a time.
type family struct {
	words  int
	list   [][]uint64
	number map[string]set
	unions map[[2]set]set
}

func newFamily(images int) *family {
	f := &family{words: (images + 63) / 64, number: map[string]set{}, unions: map[[2]set]set{}}
	f.of(make([]uint64, f.words))
	return f
}

// of returns the number of a set, which must not be changed afterwards.
func (f *family) of(members []uint64) set {
	key := keyOf(members)
	if s, ok := f.number[key]; ok {
		return s
	}
	s := set(len(f.list))
	f.list, f.number[key] = append(f.list, members), s
	return s
}

// with returns a set with one image more.
func (f *family) with(s set, image int) set {
	members := append([]uint64(nil), f.list[s]...)
	members[image/64] |= 1 << (image % 64)
	return f.of(members)
}

// union returns the union of two sets.
func (f *family) union(a, b set) set {
	if a == b || b == 0 {
		return a
	}
	if a == 0 {
		return b
	}
	key := [2]set{a, b}
	if s, ok := f.unions[key]; ok {
		return s
	}
	members := append([]uint64(nil), f.list[a]...)
	for i, w := range f.list[b] {
		members[i] |= w
	}
	s := f.of(members)
	f.unions[key] = s
	return s
}

// size is how many images a set has.
func (f *family) size(s set) (n int) {
	for _, w := range f.list[s] {
		n += bits.OnesCount64(w)
	}
	return n
}

// images are those of a set, in order.
func (f *family) images(s set) []int {
	list := []int{}
	for i, w := range f.list[s] {
		for ; w != 0; w &= w - 1 {
			list = append(list, 64*i+bits.TrailingZeros64(w))
		}
	}
	return list
}

// keyOf is a set as the key of a map.
func keyOf(members []uint64) string {
	key := make([]byte, 0, 8*len(members))
	for _, w := range members {
		key = binary.LittleEndian.AppendUint64(key, w)
	}
	return string(key)
}
