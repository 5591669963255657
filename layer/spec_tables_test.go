package layer

import (
	"fmt"
	"maps"
	"math/bits"
	"strconv"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

// section is a section of a file of the specification.
func section(t *testing.T, file, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(readText(t, "../spec/"+file), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", file, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// table reads the rows of tables of two columns. The rows of headings have no meaning, and
// are left out.
func table(t *testing.T, text string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "| ") || i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---") {
			continue
		}
		key, value, ok := strings.Cut(strings.Trim(line, "| "), " | ")
		if _, again := out[key]; again || !ok {
			t.Errorf("row %q: not two columns, or again", line)
		}
		out[key] = value
	}
	return out
}

// TestSpecLimits holds the tables of limits to the constants.
func TestSpecLimits(t *testing.T) {
	want := make(map[string]string)
	for _, row := range [][2]string{
		{"block", binaryUnit(ipfs.LeafSize)},
		{"layer root", binaryUnit(MaxRootBlock)},
		{"index, compressed", binaryUnit(MaxIndexFile)},
		{"index, decompressed", fmt.Sprintf("%s, and the larger of %s and %d times its compressed size", binaryUnit(MaxIndex), binaryUnit(freeInflat), maxRatio)},
		{"zstd window", binaryUnit(maxWindow)},
		{"entries of an index", thousands(MaxEntries)},
		{"name of an entry, and of an extended attribute", thousands(MaxName) + " bytes"},
		{"depth", thousands(MaxDepth)},
		{"symlink target", thousands(MaxTarget) + " bytes"},
		{"size of a file, and of the compressed tar-split", binaryUnit(MaxFile)},
		{"value of an extended attribute", binaryUnit(MaxXattrValue)},
		{"names and values of one entry's extended attributes", binaryUnit(MaxXattrs)},
		{"payloads of a tar-split", thousands(MaxPayloads)},
		{"raw bytes in one record of a tar-split", thousands(maxSegment)},
		{"length of a tar", "2^63-1 bytes"}, // what an int64 holds
		{"levels of a sharded directory", thousands(maxShardDepth)},
		{"what the sparse files of one tar expand to", binaryUnit(MaxSparse)},
		{"names, targets and extended attributes of one tar, and 64 bytes an entry", binaryUnit(MaxMetadata)},
		{"steps along one path", power(maxSteps)},
		{"steps along all paths of one tar, or of one merge", power(MaxWork)},
		{"entries of all layers of a merge", thousands(MaxMerge)},
	} {
		want[row[0]] = row[1]
	}
	got := table(t, section(t, "layer.md", "Limits"))
	if maps.Equal(got, want) {
		return
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s: the specification says %q, the code %q", key, got[key], value)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: a limit that the code has not", key)
		}
	}
}

// TestSpecText holds numbers that stand in the text to the constants.
func TestSpecText(t *testing.T) {
	wantText(t, "image.md", "stored as one raw block of at most %s", binaryUnit(MaxImageRecord))
	wantText(t, "image.md", "the order in which it does: one raw block of at most %s", binaryUnit(MaxProfileBlock))
	wantText(t, "image.md", "at most %d, bottom first", MaxImageLayers)
	wantText(t, "image.md", "of the layer root, at most %s; MUST have that digest", binaryUnit(MaxRootBlock))
	wantText(t, "image.md", "at most %d multiaddrs of at most %s bytes", MaxImagePeers, thousands(MaxImagePeer))
	wantText(t, "layer.md", "with a window of at most %s", binaryUnit(maxWindow))
	wantText(t, "layer.md", "larger than %s bytes as encoded; then it is sharded", thousands(maxDirectory))
	wantText(t, "layer.md", "a HAMT of fanout %d", shardWidth)
	wantText(t, "layer.md", "if met > %d: error", maxLinksWalked)
	wantText(t, "layer.md", "if follows > %d: error", maxFollows)
	wantText(t, "layer.md", "`version` other than %d and `profile` other than `%s` are refused", indexVersion, profile)
	for flag, name := range map[int]string{flagImplied: "IMPLIED", flagOpaque: "OPAQUE", flagWhiteout: "WHITEOUT", flagKeepXattrs: "KEEP_XATTRS"} {
		wantText(t, "layer.md", "| %d | %s |", flag, name)
	}
}

// TestSpecErrors wants a word for every error of the specification, and no other.
func TestSpecErrors(t *testing.T) {
	known := make(map[string]bool)
	for _, w := range vectorWords {
		known["`"+w.word+"`"] = true
	}
	words := table(t, section(t, "layer.md", "Errors"))
	maps.Copy(words, table(t, section(t, "image.md", "Errors")))
	delete(words, "`original`") // it is of package convert
	for word := range words {
		if !known[word] {
			t.Errorf("no error is called %s", word)
		}
	}
	if len(words) != len(known) {
		t.Errorf("%d words in the specification, %d here", len(words), len(known))
	}
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := decimal(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// binaryUnit writes a number of bytes in the largest unit that it is a multiple of.
func binaryUnit(n int64) string {
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if size := int64(1) << (40 - 10*i); n%size == 0 {
			return fmt.Sprintf("%d %s", n/size, unit)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// power writes a power of two.
func power(n int64) string { return fmt.Sprintf("2^%d", bits.TrailingZeros64(uint64(n))) }

func abnfByte(n int) string { return fmt.Sprintf("%%x%02X", n) }
