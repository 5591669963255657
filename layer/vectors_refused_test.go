package layer

import (
	"strconv"
	"strings"
	"testing"
)

// refusedTars are the cases of tar.json, with the word for what is wrong with each.
func refusedTars(t *testing.T) []tarVector {
	t.Helper()
	var all []tarVector
	for _, cases := range [][]tarVector{refusedBlocks(t), refusedRecords(), refusedSparse(t), refusedEntries(t), refusedPaths(), refusedSizes()} {
		all = append(all, cases...)
	}
	return all
}

// refusedBlocks cannot be read: blocks and fields of headers.
func refusedBlocks(t *testing.T) []tarVector {
	a := fileEntry("a", "")
	h := tarHeader{Name: "a", Mode: "644", Type: "0"}
	one := int64(1)
	wrong := h
	wrong.Checksum = &one
	star := patch{508, "tar\x00"}
	negative := patch{124, strings.Repeat("\xff", 12)}
	binary := fileEntry("a", "")[0].Header
	sum, err := binary.block()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(string(sum[148:154]), 8, 64)
	if err != nil {
		t.Fatal(err)
	}
	copy(sum[148:], []byte{0x80, 0, 0, 0, 0, 0, byte(n >> 8), byte(n)})
	return []tarVector{
		{"a wrong checksum", ended(bare(wrong)), "tar"},
		{"a block of zeros between", ended([]tarPart{{Zeros: blockBytes}}, a), "tar"},
		{"an end within a header", joined(a, []tarPart{{Repeat: &tarRepeat{"x", 100}}}), "tar"},
		{"an end within the second block of zeros", joined(a, []tarPart{{Zeros: 700}}), "tar"},
		{"an end within a content", joined(bare(tarHeader{Name: "a", Mode: "644", Type: "0", Size: 600}), []tarPart{{Text: "hello"}}), "tar"},
		{"a mode that is no number", ended(patched(t, h, patch{100, "0000x44\x00"})), "tar"},
		{"a number of more than 64 bits", ended(patched(t, h, patch{136, "\x80" + strings.Repeat("\xff", 11)})), "tar"},
		{"a checksum in base 256", ended(runsOf(sum)), "tar"},
		{"a size below zero", ended(patched(t, h, negative)), "tar"},
		{"a size below zero in place of which PAX has another", ended(pax("size=0"), patched(t, h, negative)), "tar"},
		{"a size below zero of a directory without a type", ended(patched(t, tarHeader{Name: "d/", Mode: "755"}, negative)), "tar"},
		{"star with a time that is no number", ended(patched(t, h, star, patch{476, "not a number"})), "tar"},
	}
}

// refusedRecords are PAX headers.
func refusedRecords() []tarVector {
	a := fileEntry("a", "")
	raw := func(text string) []tarPart { return ended(stored(tarHeader{Name: "x", Type: "x"}, text), a) }
	largest := 1<<20 - len("1048577 comment=\n") + 1
	return []tarVector{
		{"a record without a length", raw("path=p\n"), "tar"},
		{"a record longer than the header", raw("99 path=p\n"), "tar"},
		{"a record shorter than it is", raw("8 path=p\n"), "tar"},
		{"a record without an equals sign", raw("7 path\n"), "tar"},
		{"a record without a key", raw("5 =x\n"), "tar"},
		{"a path with a NUL", ended(pax("path=a\x00b"), a), "tar"},
		{"a key with a NUL", ended(pax("a\x00b=c"), a), "tar"},
		{"a uid that is no number", ended(pax("uid=1x"), a), "tar"},
		{"a time that is no number", ended(pax("mtime=1.x"), a), "tar"},
		{"a PAX size below zero", ended(pax("size=-1"), a), "tar"},
		{"a PAX header of more than 1 MiB", ended(paxLong("comment", largest), a), "tar"},
		{"a long name of more than 1 MiB", ended(long("L", "x", 1<<20+1), a), "tar"},
	}
}

// refusedSparse are sparse files.
func refusedSparse(t *testing.T) []tarVector {
	sparse := func(places, count, body string) []tarPart {
		return ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=10", "GNU.sparse.numblocks="+count, "GNU.sparse.map="+places), fileEntry("s", body))
	}
	ustar := patched(t, tarHeader{Name: "s", Mode: "644", Type: "S", Size: 5}, patch{386, "00000000002\x00"}, patch{398, "00000000005\x00"}, patch{483, "00000000012\x00"})
	return []tarVector{
		{"sparse, out of order", sparse("7,2,2,3", "2", "abcde"), "tar"},
		{"sparse, overlapping", sparse("2,3,4,2", "2", "abcde"), "tar"},
		{"sparse, past the size", sparse("2,3,9,2", "2", "abcde"), "tar"},
		{"sparse, fewer places than it says", sparse("2,3,7,2", "3", "abcde"), "tar"},
		{"sparse, no number", sparse("2,3,7,x", "2", "abcde"), "tar"},
		{"sparse, fewer bytes stored", sparse("2,3,7,2", "2", "abcd"), "tar"},
		{"sparse, more bytes stored", sparse("2,3,7,2", "2", "abcdef"), "tar"},
		{"sparse, a directory", ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.numblocks=0"), dirEntry("d/")), "tar"},
		{"sparse, version 1.0 without a map", ended(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5"), fileEntry("s", "x\n")), "tar"},
		{"sparse, version 0.0 in another order", ended(pax("GNU.sparse.size=10", "GNU.sparse.numblocks=1", "GNU.sparse.numbytes=5", "GNU.sparse.offset=2"), fileEntry("s", "abcde")), "tar"},
		{"sparse, places out of turn in a global header", ended(global("GNU.sparse.numbytes=5"), fileEntry("s", "")), "tar"},
		{"sparse, a place with a comma", ended(pax("GNU.sparse.size=10", "GNU.sparse.numblocks=1", "GNU.sparse.offset=2,5", "GNU.sparse.numbytes=5"), fileEntry("s", "abcde")), "tar"},
		{"sparse, bytes stored of an empty file", ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=0", "GNU.sparse.numblocks=0"), fileEntry("s", "a")), "tar"},
		{"sparse, type S in ustar", ended(ustar, []tarPart{{Text: "abcde"}, {Pad: true}}), "tar"},
		{"sparse, a name with a NUL", ended(pax("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=a\x00b", "GNU.sparse.size=0", "GNU.sparse.numblocks=0"),
			fileEntry("s", "")), "tar"},
	}
}

// refusedEntries can be read and not applied.
func refusedEntries(t *testing.T) []tarVector {
	device := tarHeader{Name: "c", Mode: "644", Type: "3"}
	attribute := func(record string) []tarPart { return ended(pax("SCHILY.xattr."+record), fileEntry("a", "")) }
	return []tarVector{
		{"a type that nobody knows", ended(bare(tarHeader{Name: "a", Mode: "644", Type: "7"})), "tar"},
		{"a symlink to nothing", ended(symEntry("s", "")), "tar"},
		{"a device number below zero", ended(patched(t, device, patch{329, strings.Repeat("\xff", 8)})), "tar"},
		{"a device number of 33 bits", ended(patched(t, device, patch{337, "\x80\x00\x00\x01\x00\x00\x00\x00"})), "tar"},
		{"a whiteout of an entry", ended(fileEntry("x", ""), fileEntry(".wh.x", "")), "tar"},
		{"a whiteout twice", ended(fileEntry(".wh.x", ""), fileEntry(".wh.x", "")), "tar"},
		{"a whiteout of no name", ended(fileEntry("a/.wh.", "")), "tar"},
		{"a whiteout of the directory", ended(fileEntry("a/.wh..", "")), "tar"},
		{"a whiteout of the parent", ended(fileEntry("a/.wh...", "")), "tar"},
		{"an entry below a file", ended(fileEntry("a", ""), fileEntry("a/b", "")), "tar"},
		{"an entry below a whiteout", ended(fileEntry(".wh.a", ""), fileEntry("a/b", "")), "tar"},
		{"a loop of symlinks", ended(symEntry("a", "b"), symEntry("b", "a"), fileEntry("a/x", "")), "tar"},
		{"a directory that is gone at the end", ended(dirEntry("a/"), dirEntry("b/"), symEntry("a", "x")), "tar"},
		{"an attribute of overlayfs", attribute("user.overlay.opaque=y"), "xattr"},
		{"an attribute of overlayfs on a directory", ended(pax("SCHILY.xattr.user.overlay.redirect=/x"), dirEntry("d/")), "xattr"},
		{"an attribute of overlayfs on the root", ended(pax("SCHILY.xattr.user.overlay.opaque=y"), dirEntry("./")), "xattr"},
		{"an attribute without a name", attribute("=v"), "tar"},
		{"an attribute of a name space alone", attribute("user.=v"), "tar"},
		{"an attribute that is a name space", attribute("security=v"), "tar"},
	}
}

// refusedPaths lead to where no entry can be.
func refusedPaths() []tarVector {
	a := fileEntry("a", "")
	return []tarVector{
		{"a name out of the root", ended(fileEntry("../x", "")), "path"},
		{"a name that gets out of the root", ended(fileEntry("a/../../x", "")), "path"},
		{"an absolute name", ended(fileEntry("/etc/passwd", "")), "path"},
		{"an absolute name with dots", ended(fileEntry("/../x", "")), "path"},
		{"a whiteout out of the root", ended(fileEntry("../.wh.x", "")), "path"},
		{"a hard link out of the root", ended(a, linkEntry("b", "../a")), "path"},
		{"a hard link that gets out of the root", ended(a, linkEntry("b", "x/../../a")), "path"},
		{"a hard link to nothing", ended(linkEntry("b", "a")), "hardlink"},
		{"a hard link to a later entry", ended(linkEntry("b", "a"), a), "hardlink"},
		{"a hard link to itself", ended(a, linkEntry("a", "a")), "hardlink"},
		{"a hard link to a directory", ended(dirEntry("a/"), linkEntry("b", "a")), "hardlink"},
		{"a hard link to the root", ended(linkEntry("b", ".")), "hardlink"},
		{"a hard link to nothing behind a symlink", ended(symEntry("s", "/nowhere"), linkEntry("b", "s/a")), "hardlink"},
	}
}

// refusedSizes exceed limits.
func refusedSizes() []tarVector {
	a := fileEntry("a", "")
	name := strings.Repeat("n", MaxName+1)
	deep := "d/"
	h := tarHeader{Name: "././@LongLink", Type: "L", Size: int64(len(deep)*MaxDepth + 1)}
	return []tarVector{
		{"a name of 256 bytes", ended(pax("path="+name), a), "limit"},
		{"an implied directory with a name of 256 bytes", ended(pax("path="+name+"/x"), a), "limit"},
		{"a whiteout of a name of 256 bytes", ended(pax("path=.wh."+name), a), "limit"},
		{"a symlink target of 4096 bytes", ended(long("K", "t", MaxTarget+1), symEntry("s", "t")), "limit"},
		{"a depth of 4097", ended(bare(h), []tarPart{{Repeat: &tarRepeat{deep, MaxDepth}}, {Text: "x"}, {Pad: true}}, a), "limit"},
		{"a file of more than 1 TiB", ended(pax("size=1099511627777"), a), "limit"},
		{"an attribute of more than 64 KiB", ended(paxLong("SCHILY.xattr.user.a", MaxXattrValue+1), a), "limit"},
		{"attributes of more than 128 KiB", ended(threeAttributes(44_000), a), "limit"},
		{"an attribute with a name of 256 bytes", ended(pax("SCHILY.xattr.user."+strings.Repeat("n", MaxName+1-len("user."))+"=v"), a), "limit"},
	}
}

// threeAttributes is a PAX header of three extended attributes, each of so many bytes.
func threeAttributes(size int) []tarPart {
	out := bare(tarHeader{Name: "x", Type: "x"})
	for _, key := range []string{"a", "b", "c"} {
		before, after := paxRecord("SCHILY.xattr.user."+key+"=", size)
		out = append(out, tarPart{Text: before}, tarPart{Repeat: &tarRepeat{"x", size}}, tarPart{Text: after})
		out[0].Header.Size += int64(len(before) + size + len(after))
	}
	return append(out, tarPart{Pad: true})
}
