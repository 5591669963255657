package layer

import (
	"strconv"
	"strings"
	"testing"
)

// The cases here are of spec/layer.md, "Reading a tar".

// endCases are about where a tar ends, and what is between and after its entries.
func endCases() []layerCase {
	a := fileEntry("a", "hello")
	example := stored(tarHeader{Name: "a", Mode: "644", Mtime: 1, Type: "0"}, "hello")
	one := []string{"a file 0644 5"}
	return []layerCase{
		{"the example of a tar-split", ended(example), one},
		{"no bytes", joined(), nil},
		{"only the end", ended(), nil},
		{"one block of zeros", joined(a, []tarPart{{Zeros: blockBytes}}), one},
		{"no end", a, one},
		{"an end within padding", joined(a[:2], []tarPart{{Zeros: 100}}), one},
		{"bytes after the end", joined(ended(a), []tarPart{{Text: "what follows"}}), one},
		{"a tar after the end", joined(ended(a), ended(fileEntry("b", ""))), one},
		{"padding that is not zero", ended(a[:2], []tarPart{{Repeat: &tarRepeat{"x", 507}}}), one},
	}
}

// headerCases are about the fields of headers, and the headers of GNU tar.
func headerCases(t *testing.T) []layerCase {
	file := func(change func(*tarHeader)) tarHeader {
		h := tarHeader{Name: "b", Mode: "644", Type: "0"}
		change(&h)
		return h
	}
	v7 := file(func(h *tarHeader) { h.Magic, h.Prefix = "none", "a" })
	ustar := file(func(h *tarHeader) { h.Prefix = "a" })
	oldGo := file(func(h *tarHeader) { h.Magic, h.Prefix = "gnu", "a" })
	gnuTime := file(func(h *tarHeader) { h.Magic, h.Prefix = "gnu", "00000000001" })
	numbers := []patch{{100, "  0644 \x00"}, {108, "\x80\x00\x00\x00\x80\x00\x00\x00"}, {136, strings.Repeat("\xff", 12)}}
	implied := []string{"a implied", "a/b file 0644 0"}
	alone := []string{"b file 0644 0"}
	return []layerCase{
		{"v7 has no prefix", ended(bare(v7)), alone},
		{"the prefix of ustar", ended(bare(ustar)), implied},
		{"the prefix of star", ended(patched(t, ustar, patch{508, "tar\x00"})), implied},
		{"gnu with a prefix", ended(bare(oldGo)), implied},
		{"gnu with an access time", ended(bare(gnuTime)), alone},
		{"numbers in base 256 and between spaces", ended(patched(t, file(func(*tarHeader) {}), numbers...)), alone},
		{"a checksum of signed bytes", ended(bare(signedChecksum(t))), []string{`\xc3\xb6 file 0644 0`}},
		{"types left out", ended(bare(tarHeader{Name: "d/", Mode: "755"}), bare(tarHeader{Name: "f", Mode: "644"})),
			[]string{"d dir 0755", "f file 0644 0"}},
		{"a file whose name ends in a slash", ended(fileEntry("b/", "")), alone},
		{"sizes of what has no content", ended(bare(tarHeader{Name: "d/", Mode: "755", Type: "5", Size: 5}), fileEntry("e", "hello"),
			bare(tarHeader{Name: "n/", Mode: "755", Size: 7}), bare(tarHeader{Name: "s", Type: "2", Link: "e", Size: 9})),
			[]string{"d dir 0755", "e file 0644 5", "n dir 0755", "s symlink e"}},
		{"a long name", ended(long("L", "n", 120), fileEntry("short", "x")), []string{strings.Repeat("n", 120) + " file 0644 1"}},
		{"a long link", ended(long("K", "t", 150), symEntry("s", "short")), []string{"s symlink " + strings.Repeat("t", 150)}},
		{"a long name that is empty", ended(bare(tarHeader{Name: "././@LongLink", Type: "L"}), fileEntry("b", "")), alone},
		{"a long name that ends at a NUL", ended(long("L", "b\x00c", 1), fileEntry("short", "")), alone},
		{"a name that is not UTF-8", ended(bare(tarHeader{Name: "././@LongLink", Type: "L", Size: 2}), []tarPart{{Hex: "fffe"}, {Pad: true}}, fileEntry("short", "")),
			[]string{`\xff\xfe file 0644 0`}},
	}
}

// signedChecksum is a header whose checksum is that of signed bytes.
func signedChecksum(t *testing.T) tarHeader {
	t.Helper()
	h := tarHeader{Name: "ö", Mode: "644", Type: "0"}
	b, err := h.block()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := strconv.ParseInt(string(b[148:154]), 8, 64)
	if err != nil {
		t.Fatal(err)
	}
	sum -= int64(len(h.Name)) << 8 // both of its bytes are negative
	h.Checksum = &sum
	return h
}

// paxCases are about PAX records.
func paxCases() []layerCase {
	a := fileEntry("a", "")
	alone := []string{"a file 0644 0"}
	capability := "SCHILY.xattr.security.capability=\x01\x00\x00\x02" + strings.Repeat("\x00", 16)
	return []layerCase{
		{"PAX values", ended(pax("path=p", "uid=4000000000", "gid=7", "size=5", "mtime=-1.5", "atime=1.5", "uname=u"),
			bare(tarHeader{Name: "a", Mode: "644", Type: "0"}), []tarPart{{Text: "hello"}, {Pad: true}}), []string{"p file 0644 5"}},
		{"a PAX linkpath", ended(pax("linkpath=t"), symEntry("s", "x")), []string{"s symlink t"}},
		{"PAX values that are empty", ended(pax("path=", "size=", "mtime="), fileEntry("a", "hello")), []string{"a file 0644 5"}},
		{"a PAX key twice", ended(pax("path=b", "path=a"), fileEntry("x", "")), alone},
		{"more digits of a time than count", ended(pax("mtime=1.1234567891"), a), alone},
		{"a time with a point and no digits", ended(pax("mtime=1."), a), alone},
		{"a time before all that 64 bits hold", ended(pax("mtime=-9223372036854775808.5"), a), alone},
		{"lengths of records with a sign and zeros", ended(bare(tarHeader{Name: "x", Type: "x", Size: 23}), []tarPart{{Text: "+11 path=b\n0012 path=a\n"}, {Pad: true}}, fileEntry("x", "")), alone},
		{"keys that nobody knows", ended(pax("LIBARCHIVE.x=y", "comment=z"), a), alone},
		{"the second PAX header counts", ended(pax("path=p"), pax("mtime=5"), a), alone},
		{"a long name counts more than PAX", ended(pax("path=p"), long("L", "a", 1), fileEntry("x", "")), alone},
		{"a long name before PAX", ended(long("L", "a", 1), pax("path=p"), fileEntry("x", "")), alone},
		{"a global header between", ended(pax("path=p"), global("comment=x"), a), alone},
		{"a long name before a global header", ended(long("L", "p", 1), global("comment=x"), a), alone},
		{"a global header speaks of no other", ended(global("path=g", "uid=5", "mtime=5"), a), alone},
		{"extended attributes", ended(pax("SCHILY.xattr.user.b=2", "SCHILY.xattr.user.a=", "SCHILY.xattr.trusted.c=3", "SCHILY.xattr.other=4", capability), a), alone},
	}
}

// sparseCases are about the sparse files of GNU tar: ten bytes, of which five are stored.
func sparseCases(t *testing.T) []layerCase {
	sparse := []string{"s file 0644 10"}
	header := tarHeader{Name: "s", Mode: "644", Type: "S", Magic: "gnu", Size: 5}
	size := patch{483, "00000000012\x00"}
	places := []patch{{386, "00000000002\x00"}, {398, "00000000003\x00"}, {410, "00000000007\x00"}, {422, "00000000002\x00"}}
	content := []tarPart{{Text: "abcde"}, {Pad: true}}
	more := joined(patched(t, header, size, places[0], places[1], patch{482, "\x01"}),
		[]tarPart{{Text: "00000000007\x0000000000002\x00"}, {Pad: true}}, content)
	onePointNought := stored(tarHeader{Name: "x/s", Mode: "644", Type: "0"}, "2\n2\n3\n7\n2\n")
	onePointNought[0].Header.Size = blockBytes + 5
	return []layerCase{
		{"sparse, type S", ended(patched(t, header, append(places, size)...), content), sparse},
		{"sparse, type S, with more maps", ended(more), sparse},
		{"sparse, version 0.0", ended(pax("GNU.sparse.size=10", "GNU.sparse.numblocks=2", "GNU.sparse.offset=2", "GNU.sparse.numbytes=3",
			"GNU.sparse.offset=7", "GNU.sparse.numbytes=2"), fileEntry("s", "abcde")), sparse},
		{"sparse, version 0.1", ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=s", "GNU.sparse.size=10",
			"GNU.sparse.numblocks=2", "GNU.sparse.map=2,3,7,2"), fileEntry("x/s", "abcde")), sparse},
		{"sparse, version 1.0", ended(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "GNU.sparse.realsize=10"),
			onePointNought, content), sparse},
		{"sparse, a version that nobody knows", ended(pax("GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.name=x"),
			fileEntry("s", "hello")), []string{"s file 0644 5"}},
		{"sparse, a map and places", ended(pax("GNU.sparse.size=10", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,9", "GNU.sparse.offset=2", "GNU.sparse.numbytes=5"),
			fileEntry("s", "abcde")), sparse},
		{"sparse, a name that counts more than a long one", ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=s", "GNU.sparse.numblocks=0", "GNU.sparse.size=10"),
			long("L", "x", 1), fileEntry("y", "")), sparse},
		{"sparse, the size of a PAX record", ended(pax("GNU.sparse.numblocks=1", "GNU.sparse.map=0,5", "size=5"), bare(tarHeader{Name: "s", Mode: "644", Type: "0"}),
			[]tarPart{{Text: "abcde"}, {Pad: true}}), []string{"s file 0644 5"}},
		{"sparse, a whiteout and the root with other bytes than a map has", ended(pax("GNU.sparse.size=10", "GNU.sparse.numblocks=1", "GNU.sparse.map=2,5"), fileEntry(".wh.s", "abc"),
			pax("GNU.sparse.size=10", "GNU.sparse.numblocks=1", "GNU.sparse.map=2,5"), fileEntry(".", "abcdef")), []string{"s whiteout"}},
		{"sparse, nothing but a hole", ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=1000", "GNU.sparse.numblocks=0"),
			fileEntry("s", "")), []string{"s file 0644 1000"}},
	}
}
