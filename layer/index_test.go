package layer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"google.golang.org/protobuf/encoding/protowire"
)

var someDigest = strings.Repeat("d", sumSize)

func root() Entry { return Entry{Parent: -1, Link: -1, Mode: impliedMode, Implied: true} }

func regular(name string, parent int32) Entry {
	return Entry{Name: name, Parent: parent, Link: -1, Mode: 0o644, Digest: someDigest, Size: 5}
}

func directory(name string, parent int32) Entry {
	return Entry{Name: name, Parent: parent, Link: -1, Mode: os.ModeDir | 0o755}
}

func with(e Entry, change func(*Entry)) Entry {
	change(&e)
	return e
}

// largeFile is a file of three leaves, right in itself.
func largeFile(t testing.TB) (size int64, digest, leaves string) {
	t.Helper()
	size, leaves = 2*ipfs.LeafSize+1, strings.Repeat("l", 3*sumSize)
	c, err := ipfs.BuildFile(size, leaves, nil)
	if err != nil {
		t.Fatal(err)
	}
	return size, sumOf(c), leaves
}

// fullIndex has something of everything.
func fullIndex(t testing.TB) *Index {
	size, digest, leaves := largeFile(t)
	return &Index{Entries: []Entry{
		root(),
		directory("a", 0),
		with(directory("b", 1), func(e *Entry) {
			e.KeepXattrs = true
			e.Extra = &Extra{Xattrs: []Xattr{{"user.a", ""}, {"user.b", "v"}}}
		}),
		{Name: "big", Parent: 1, Link: -1, Mode: os.ModeSetuid | 0o755, Digest: digest, Size: size, Extra: &Extra{Leaves: leaves}, Mtime: math.MinInt64, MtimeNsec: 999_999_999, UID: math.MaxUint32},
		{Name: "dev", Parent: 1, Link: -1, Mode: os.ModeDevice | os.ModeCharDevice, Extra: &Extra{Major: 1, Minor: math.MaxUint32}},
		{Name: "link", Parent: 1, Link: 3},
		{Name: "null", Parent: 1, Link: -1, Mode: os.ModeDevice},
		{Name: "gone", Parent: 0, Link: -1, Whiteout: true},
		{Name: "implied", Parent: 0, Link: -1, Mode: impliedMode, Implied: true, Opaque: true, GID: 4},
		{Name: "p", Parent: 8, Link: -1, Mode: os.ModeNamedPipe | 0o600},
		{Name: "s\xff", Parent: 8, Link: -1, Mode: os.ModeSymlink | 0o777, Target: "../\n", Mtime: math.MaxInt64},
		regular("z", 0),
	}}
}

func TestIndexRoundTrip(t *testing.T) {
	want := fullIndex(t)
	b, err := EncodeIndex(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	for i := range b {
		if x, err := DecodeIndex(b[:i]); err == nil && len(x.Entries) == len(want.Entries) {
			t.Errorf("cut after %d bytes: accepted", i)
		}
	}
	if p := got.Path(10); p != "implied/s\xff" {
		t.Errorf("path %q", p)
	}
}

type refused struct {
	want    error
	entries []Entry
}

// refusedIndexes returns indexes that are neither written nor read, and the error of each.
func refusedIndexes(t *testing.T) map[string]refused {
	size, digest, leaves := largeFile(t)
	file := regular("a", 0)
	return map[string]refused{
		"no entries":          {ErrIndex, nil},
		"root with a name":    {ErrIndex, []Entry{directory("a", -1)}},
		"root is a file":      {ErrIndex, []Entry{regular("", -1)}},
		"two roots":           {ErrIndex, []Entry{root(), with(root(), func(e *Entry) { e.Parent = 0 })}},
		"unsorted":            {ErrIndex, []Entry{root(), regular("b", 0), file}},
		"duplicate":           {ErrIndex, []Entry{root(), file, file}},
		"duplicate below":     {ErrIndex, []Entry{root(), directory("a", 0), regular("b", 1), file}},
		"child of a file":     {ErrIndex, []Entry{root(), file, regular("b", 1)}},
		"child of a whiteout": {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Whiteout: true}, regular("b", 1)}},
		"not in preorder":     {ErrIndex, []Entry{root(), directory("a", 0), directory("b", 0), regular("c", 1)}},
		"dot":                 {ErrIndex, []Entry{root(), regular(".", 0)}},
		"dot dot":             {ErrIndex, []Entry{root(), regular("..", 0)}},
		"slash":               {ErrIndex, []Entry{root(), regular("a/b", 0)}},
		"nul":                 {ErrIndex, []Entry{root(), regular("a\x00", 0)}},
		"empty name":          {ErrIndex, []Entry{root(), regular("", 0)}},
		"long name":           {ErrTooLarge, []Entry{root(), regular(strings.Repeat("n", 256), 0)}},
		"trusted":             {ErrXattr, []Entry{root(), with(file, func(e *Entry) { e.Extra = &Extra{Xattrs: []Xattr{{"trusted.overlay.redirect", "/x"}}} })}},
		"user.overlay":        {ErrXattr, []Entry{root(), with(directory("a", 0), func(e *Entry) { e.Extra = &Extra{Xattrs: []Xattr{{"user.overlay.metacopy", ""}}} })}},
		"trusted on the root": {ErrXattr, []Entry{with(directory("", -1), func(e *Entry) { e.Extra = &Extra{Xattrs: []Xattr{{"trusted.x", ""}}} })}},
		"unsorted attributes": {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.Extra = &Extra{Xattrs: []Xattr{{"user.b", ""}, {"user.a", ""}}} })}},
		"many attributes": {ErrTooLarge, []Entry{root(), with(file, func(e *Entry) {
			e.Extra = &Extra{Xattrs: []Xattr{{"user.a", strings.Repeat("x", 65536)}, {"user.b", strings.Repeat("x", 65536)}}}
		})}},
		"no digest":           {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.Digest = "" })}},
		"leaves of another":   {ipfs.ErrFile, []Entry{root(), {Name: "a", Link: -1, Size: size, Digest: someDigest, Extra: &Extra{Leaves: leaves}}}},
		"other leaves":        {ipfs.ErrFile, []Entry{root(), {Name: "a", Link: -1, Size: size, Digest: digest, Extra: &Extra{Leaves: strings.Repeat("m", 3*sumSize)}}}},
		"other size":          {ipfs.ErrFile, []Entry{root(), {Name: "a", Link: -1, Size: size + 1, Digest: digest, Extra: &Extra{Leaves: leaves}}}},
		"leaves missing":      {ipfs.ErrFile, []Entry{root(), {Name: "a", Link: -1, Size: size, Digest: digest}}},
		"leaves of one leaf":  {ipfs.ErrFile, []Entry{root(), with(file, func(e *Entry) { e.Extra = &Extra{Leaves: someDigest} })}},
		"size past all":       {ErrTooLarge, []Entry{root(), with(file, func(e *Entry) { e.Size = MaxFile + 1 })}},
		"link to the root":    {ErrIndex, []Entry{root(), {Name: "a", Link: 0}}},
		"link forward":        {ErrIndex, []Entry{root(), {Name: "a", Link: 2}, regular("b", 0)}},
		"link to itself":      {ErrIndex, []Entry{root(), {Name: "a", Link: 1}}},
		"link to a link":      {ErrIndex, []Entry{root(), file, {Name: "b", Link: 1}, {Name: "c", Link: 2}}},
		"link to a directory": {ErrIndex, []Entry{root(), directory("a", 0), {Name: "b", Link: 1}}},
		"link to a whiteout":  {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Whiteout: true}, {Name: "b", Link: 1}}},
		"link with a mode":    {ErrIndex, []Entry{root(), file, {Name: "b", Link: 1, Mode: 0o644}}},
		"whiteout with owner": {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Whiteout: true, UID: 1}}},
		"implied with mode":   {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Implied: true, Mode: os.ModeDir | 0o700}}},
		"opaque file":         {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.Opaque = true })}},
		"file with a target":  {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.Target = "x" })}},
		"file with a device":  {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.Extra = &Extra{Major: 1} })}},
		"fifo with a device":  {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Mode: os.ModeNamedPipe, Extra: &Extra{Major: 1}}}},
		"directory with size": {ErrIndex, []Entry{root(), with(directory("a", 0), func(e *Entry) { e.Size = 1 })}},
		"symlink to nothing":  {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Mode: os.ModeSymlink}}},
		"symlink with nul":    {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Mode: os.ModeSymlink, Target: "a\x00"}}},
		"socket":              {ErrIndex, []Entry{root(), {Name: "a", Link: -1, Mode: os.ModeSocket}}},
		"other mode bits":     {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.Mode |= os.ModeAppend })}},
		"nanoseconds":         {ErrIndex, []Entry{root(), with(file, func(e *Entry) { e.MtimeNsec = 1e9 })}},
	}
}

func TestIndexRefused(t *testing.T) {
	for name, tc := range refusedIndexes(t) {
		t.Run(name, func(t *testing.T) {
			x := &Index{Entries: tc.entries}
			if _, err := EncodeIndex(x); !errors.Is(err, tc.want) {
				t.Errorf("EncodeIndex: %v, want %v", err, tc.want)
			}
			if name == "not in preorder" {
				return // it cannot be written down
			}
			if _, err := DecodeIndex(encodeUnchecked(x)); !errors.Is(err, tc.want) && !errors.Is(err, ErrIndex) {
				t.Errorf("DecodeIndex: %v, want %v", err, tc.want)
			}
		})
	}
}

// encodeUnchecked writes an index as EncodeIndex does, whatever is wrong with it.
func encodeUnchecked(x *Index) []byte {
	out := appendUint(nil, tagVersion, indexVersion)
	out = appendString(out, tagProfile, profile)
	for i := range x.Entries {
		depth := 0
		for p := x.Entries[i].Parent; p >= 0; p = x.Entries[p].Parent {
			depth++
		}
		out = protowire.AppendVarint(out, tagEntry)
		out = protowire.AppendBytes(out, appendEntry(nil, &x.Entries[i], depth))
	}
	return out
}

// TestIndexCanonical refuses other ways to write the same index.
func TestIndexCanonical(t *testing.T) {
	b, err := EncodeIndex(&Index{Entries: []Entry{root(), regular("a", 0)}})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(fields ...byte) []byte {
		return append(append(bytes.Clone(b), byte(tagEntry), byte(len(fields))), fields...)
	}
	for name, bad := range map[string][]byte{
		"unknown field at the top": append(bytes.Clone(b), 4<<3, 1),
		"other version":            append([]byte{8, 2}, b[2:]...),
		"long varint":              append([]byte{8, 0x81, 0}, b[2:]...),
		"no header":                b[18:],
		"zero written":             entry(0x0a, 1, 'b', 0x10, 0, 0x20, 1, 0x28, 4),
		"fields out of order":      entry(0x20, 1, 0x0a, 1, 'b', 0x28, 4),
		"field twice":              entry(0x0a, 1, 'b', 0x20, 1, 0x20, 1, 0x28, 4),
		"unknown field":            entry(0x0a, 1, 'b', 0x20, 1, 0x28, 4, 0xf8, 1, 1),
		"unknown flag":             entry(0x0a, 1, 'b', 0x20, 1, 0x28, 0x40),
		"depth zero":               entry(0x0a, 1, 'b', 0x28, 4),
		"depth too large":          entry(0x0a, 1, 'b', 0x20, 3, 0x28, 4),
		"length past the end":      entry(0x0a, 100, 'b', 0x20, 1),
		"empty entry":              append(bytes.Clone(b), byte(tagEntry), 0),
		"varint of eleven bytes":   append(bytes.Clone(b), byte(tagEntry), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
	} {
		if _, err := DecodeIndex(bad); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeIndex(entry(0x0a, 1, 'b', 0x20, 1, 0x28, 4)); err != nil {
		t.Errorf("the one without a mistake: %v", err)
	}
}

// TestIndexMemory wants a claim of gigabytes to cost nothing.
func TestIndexMemory(t *testing.T) {
	b := []byte{8, 1, 0x12, 14}
	b = append(b, profile...)
	b = append(b, byte(tagEntry))
	b = protowire.AppendVarint(b, 4<<30)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := DecodeIndex(b)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrIndex) || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%v, %d bytes allocated", err, after.TotalAlloc-before.TotalAlloc)
	}
	var bomb bytes.Buffer
	w, err := newCompressor(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := inflateIndex(bytes.NewReader(bomb.Bytes()), int64(bomb.Len())); !errors.Is(err, ErrTooLarge) {
		t.Errorf("64 MiB out of %d bytes: %v", bomb.Len(), err)
	}
}

// syntheticIndex has n entries, in directories of 50, as a distribution has them.
func syntheticIndex(n int) *Index {
	x := &Index{Entries: make([]Entry, 0, n)}
	x.Entries = append(x.Entries, root())
	parent := int32(0)
	for i := 1; i < n; i++ {
		if i%50 == 1 {
			parent = int32(len(x.Entries))
			x.Entries = append(x.Entries, directory(fmt.Sprintf("directory-%08d", i), 0))
			continue
		}
		e := regular(fmt.Sprintf("some-file-name-%08d.so", i), parent)
		e.Digest = fmt.Sprintf("%032d", i*7919)
		e.Size, e.Mtime, e.MtimeNsec = int64(i%100000), 1_700_000_000+int64(i), uint32(i)
		x.Entries = append(x.Entries, e)
	}
	return x
}

func BenchmarkDecodeIndex(b *testing.B) {
	const n = 1_000_000
	raw, err := EncodeIndex(syntheticIndex(n))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeIndex(raw); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkEncodeIndex(b *testing.B) {
	x := syntheticIndex(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := EncodeIndex(x); err != nil {
			b.Fatal(err)
		}
	}
}
