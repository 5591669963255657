package layer

import (
	"fmt"
	"math"
	"os"

	"google.golang.org/protobuf/encoding/protowire"
)

// DecodeIndex reads an index and accepts nothing that EncodeIndex would not write, so
// that one index has one form. The strings of the result are parts of one copy of b.
func DecodeIndex(b []byte) (*Index, error) { return decodeIndex([]string{string(b)}) }

// decodeIndex reads an index that is in pieces, each but the last of whole fields.
func decodeIndex(pieces []string) (*Index, error) {
	x := new(Index)
	v := validator{entries: x}
	var path []int32 // the entries from the root down to the one before
	err := scanIndex(pieces, func(count int) {
		x.Entries = make([]Entry, 0, count)
	}, func(_, depth int, e *Entry) error {
		i := len(x.Entries)
		x.Entries = append(x.Entries, *e)
		if err := v.entry(i, depth, e); err != nil {
			return err
		}
		path = append(path[:depth], int32(i))
		x.Entries[i].Parent = -1
		if depth > 0 {
			x.Entries[i].Parent = path[depth-1]
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	return x, nil
}

// scanIndex reads an index that is in pieces: it calls counted with how many entries there
// are, and then next with each, with the byte at which it starts and its depth.
func scanIndex(pieces []string, counted func(int), next func(start, depth int, e *Entry) error) error {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	if size > MaxIndex {
		return fmt.Errorf("%w (%d bytes)", ErrTooLarge, MaxIndex)
	}
	r := fields{rest: pieces}
	r.more()
	if !r.header() {
		return fmt.Errorf("%w: want version %d and profile %s first", ErrIndex, indexVersion, profile)
	}
	// Counting first costs little and makes the one large allocation exact, and never
	// larger than what the bytes at hand are good for.
	n, err := countEntries(r)
	if err != nil {
		return err
	}
	counted(n)
	var e Entry
	for i := range n {
		r.more()
		start := r.before + r.off
		r.uvarint()
		e = Entry{}
		depth, err := e.decode(r.bytes())
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := next(start, int(depth), &e); err != nil {
			return err
		}
	}
	return nil
}

func countEntries(r fields) (int, error) {
	n := 0
	for r.more() {
		if r.uvarint() != tagEntry {
			return 0, fmt.Errorf("%w: something other than an entry at byte %d", ErrIndex, r.before+r.off)
		}
		if r.bytes(); r.bad {
			return 0, fmt.Errorf("%w: cut off at byte %d", ErrIndex, r.before+r.off)
		}
		if n++; n > MaxEntries {
			return 0, fmt.Errorf("%w (%d entries)", ErrTooLarge, MaxEntries)
		}
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: no root entry", ErrIndex)
	}
	return n, nil
}

// decode reads one entry. Fields come in the order of their numbers, once, and never
// hold a zero: anything else is not canonical.
func (e *Entry) decode(s string) (depth uint64, err error) {
	e.Link = -1
	r := cursor{s: s}
	var last uint64
	for r.more() {
		tag := r.uvarint()
		if r.bad || tag < last || tag == last && tag != tagXattr {
			return 0, fmt.Errorf("%w: field %d is out of order", ErrIndex, tag>>3)
		}
		last = tag
		switch tag {
		case tagName:
			e.Name = r.bytes()
		case tagDigest:
			e.Digest = r.bytes()
		case tagTarget:
			e.Target = r.bytes()
		case tagLeaves:
			e.extra().Leaves = r.bytes()
		case tagXattr:
			x := e.extra()
			x.Xattrs = append(x.Xattrs, r.xattr())
		case tagDepth:
			depth = r.uint(MaxDepth)
		default:
			e.decodeInt(&r, tag)
		}
		if r.bad {
			return 0, fmt.Errorf("%w: field %d", ErrIndex, tag>>3)
		}
	}
	return depth, nil
}

func (e *Entry) decodeInt(r *cursor, tag uint64) {
	switch tag {
	case tagUID:
		e.UID = uint32(r.uint(math.MaxUint32))
	case tagGID:
		e.GID = uint32(r.uint(math.MaxUint32))
	case tagFlags:
		e.setFlags(r.uint(flagsEnd - 1))
	case tagMode:
		e.Mode = os.FileMode(r.uint(math.MaxUint32))
	case tagSize:
		e.Size = int64(r.uint(MaxFile))
	case tagMajor:
		e.extra().Major = uint32(r.uint(math.MaxUint32))
	case tagMinor:
		e.extra().Minor = uint32(r.uint(math.MaxUint32))
	case tagMtime:
		e.Mtime = protowire.DecodeZigZag(r.uint(math.MaxUint64))
	case tagNsec:
		e.MtimeNsec = uint32(r.uint(999_999_999))
	case tagLink:
		e.Link = int32(r.uint(MaxEntries))
	default:
		r.bad = true
	}
}

func (e *Entry) extra() *Extra {
	if e.Extra == nil {
		e.Extra = new(Extra)
	}
	return e.Extra
}

// fields reads the fields of an index, piece after piece.
type fields struct {
	cursor
	rest   []string
	before int // bytes of the pieces before this one
}

// more says whether there is another field, and goes to the piece that has it.
func (r *fields) more() bool {
	for !r.bad && r.off == len(r.s) && len(r.rest) > 0 {
		r.before += len(r.s)
		r.s, r.off, r.rest = r.rest[0], 0, r.rest[1:]
	}
	return r.cursor.more()
}

// wholeFields returns how many bytes the fields have that s starts with, without one that
// is cut off, or not as fields of an index are.
func wholeFields(s string) int {
	whole := 0
	for r := (cursor{s: s}); r.more(); {
		if tag := r.uvarint(); tag == tagVersion {
			r.uvarint()
		} else {
			r.bytes()
		}
		if !r.bad {
			whole = r.off
		}
	}
	return whole
}

// A cursor reads the wire form from a string and stays bad after the first mistake.
type cursor struct {
	s   string
	off int
	bad bool
}

func (r *cursor) more() bool { return !r.bad && r.off < len(r.s) }

func (r *cursor) header() bool {
	return r.uvarint() == tagVersion && r.uvarint() == indexVersion &&
		r.uvarint() == tagProfile && r.bytes() == profile && !r.bad
}

// uvarint reads a varint in its shortest form.
func (r *cursor) uvarint() uint64 {
	if r.off < len(r.s) && r.s[r.off] < 0x80 {
		r.off++
		return uint64(r.s[r.off-1])
	}
	var v uint64
	for shift := uint(0); r.off < len(r.s); shift += 7 {
		c := r.s[r.off]
		r.off++
		if shift == 63 && c > 1 || shift > 63 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if c == 0 {
				break
			}
			return v
		}
	}
	r.bad = true
	return 0
}

// uint reads a number from 1 to limit: zeros are left out.
func (r *cursor) uint(limit uint64) uint64 {
	v := r.uvarint()
	if v == 0 || v > limit {
		r.bad = true
	}
	return v
}

// bytes reads a length and as many bytes. Empty ones are left out, except entries,
// which are never empty either: the root has a mode.
func (r *cursor) bytes() string {
	n := r.uvarint()
	if r.bad || n == 0 || n > uint64(len(r.s)-r.off) {
		r.bad = true
		return ""
	}
	b := r.s[r.off : r.off+int(n)]
	r.off += int(n)
	return b
}

func (r *cursor) xattr() Xattr {
	var a Xattr
	x := cursor{s: r.bytes()}
	if x.uvarint() == tagXattrName {
		a.Name = x.bytes()
	}
	if x.more() {
		if x.uvarint() != tagXattrData {
			x.bad = true
		}
		a.Value = x.bytes()
	}
	if x.bad || x.more() || a.Name == "" {
		r.bad = true
	}
	return a
}
