//go:build linux

package snapshotter

import (
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
)

// largeFile is a file of so many leaves, each with the content of its number.
func largeFile(t *testing.T, leaves int) ipfs.File {
	t.Helper()
	f := ipfs.File{Size: int64(leaves) * ipfs.LeafSize}
	var sums strings.Builder
	for i := range leaves {
		b, err := ipfs.NewBlock(cid.Raw, []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		hash := b.Cid.Hash()
		sums.Write(hash[len(hash)-sumSize:])
		f.Cid = cid.NewCidV1(cid.DagProtobuf, hash)
	}
	f.Leaves = sums.String()
	return f
}

// TestRecordingOfLeaves tells a recording of files and of reads in orders that may come.
func TestRecordingOfLeaves(t *testing.T) {
	large, small := largeFile(t, fetch.SmallFile+12), largeFile(t, fetch.SmallFile)
	leaf := large.Leaf
	for name, c := range map[string]struct {
		read []int // before
		all  bool  // is here
		lazy bool
		tell func(rec *recording)
		want []cid.Cid
	}{
		"read after it was opened": {
			tell: func(rec *recording) {
				rec.opened(large.Cid)
				rec.read(large, 9*ipfs.LeafSize-1, 2)
				rec.opened(small.Cid)
				rec.read(small, 0, 5)
				rec.read(large, 0, 5)
				rec.read(large, 9*ipfs.LeafSize, 5)
			},
			want: []cid.Cid{leaf(8), leaf(9), small.Cid, leaf(0)},
		},
		"read before it is told that it was opened": {
			tell: func(rec *recording) {
				rec.read(large, 5*ipfs.LeafSize, 5)
				rec.read(large, 5*ipfs.LeafSize+5, 5)
				rec.opened(small.Cid)
				rec.opened(large.Cid)
			},
			want: []cid.Cid{small.Cid, leaf(5)},
		},
		"read and never opened": {tell: func(rec *recording) { rec.read(large, 5*ipfs.LeafSize, 5) }},
		"opened and not read, by what anybody sees": {
			tell: func(rec *recording) {
				rec.opened(small.Cid)
				rec.opened(large.Cid)
			},
			want: []cid.Cid{small.Cid, large.Cid},
		},
		"something was read before": {
			read: []int{3, 7},
			tell: func(rec *recording) {
				rec.opened(large.Cid)
				rec.read(large, 2*ipfs.LeafSize, 5)
				rec.opened(large.Cid)
			},
			want: []cid.Cid{leaf(3), leaf(7), leaf(2)},
		},
		"all was here": {
			all: true,
			tell: func(rec *recording) {
				rec.opened(large.Cid)
				rec.read(large, 2*ipfs.LeafSize, 5) // by who had opened it before
			},
			want: []cid.Cid{large.Cid},
		},
		"nearly all is read": {
			tell: func(rec *recording) {
				rec.opened(large.Cid)
				rec.read(large, 0, 5)
				rec.opened(small.Cid)
				rec.read(large, 0, 19*ipfs.LeafSize)
				rec.read(large, 19*ipfs.LeafSize, 5)
			},
			want: []cid.Cid{large.Cid, small.Cid},
		},
		"only reads tell": {
			lazy: true,
			tell: func(rec *recording) {
				rec.read(large, 2*ipfs.LeafSize, 5)
				rec.read(small, 2*ipfs.LeafSize, 5)
				rec.read(large, 3*ipfs.LeafSize, 5)
			},
			want: []cid.Cid{leaf(2), small.Cid, leaf(3)},
		},
		"only reads tell, and all is here": {
			lazy: true, all: true,
			tell: func(rec *recording) { rec.read(large, 2*ipfs.LeafSize, 5) },
			want: []cid.Cid{large.Cid},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rec := newRecording(candidate{
				find: func(c cid.Cid) (ipfs.File, bool) {
					if c == large.Cid {
						return large, true
					}
					return small, c == small.Cid
				},
				here: func(ipfs.File) ([]int, bool) { return c.read, c.all },
			}, 0)
			if c.lazy {
				rec.takeReads()
			}
			c.tell(rec)
			if files, _ := rec.stop(); !slices.Equal(files, c.want) {
				t.Errorf("recorded %v, want %v", files, c.want)
			}
		})
	}
}

// TestEarlyReadsAreBounded has many files read that are never opened in the container.
func TestEarlyReadsAreBounded(t *testing.T) {
	f := largeFile(t, 200)
	rec := newRecording(candidate{find: func(cid.Cid) (ipfs.File, bool) { return f, true }}, 0)
	for i := range 3 * maxEarly {
		b, err := ipfs.NewBlock(cid.Raw, []byte{1, byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		rec.read(ipfs.File{Cid: b.Cid, Size: f.Size, Leaves: f.Leaves}, 0, f.Size)
	}
	if len(rec.early) > maxEarly {
		t.Errorf("%d files are remembered", len(rec.early))
	}
	for _, e := range rec.early {
		if len(e.leaves) > maxEarly {
			t.Fatalf("%d leaves of a file are remembered", len(e.leaves))
		}
	}
}

// TestNamed finds files and leaves in the layers of an image, in the order of a profile.
func TestNamed(t *testing.T) {
	large := largeFile(t, 20)
	raw := func(content string) (c cid.Cid, sum [sumSize]byte) {
		b, err := ipfs.NewBlock(cid.Raw, []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return b.Cid, [sumSize]byte([]byte(b.Cid.Hash()[2:]))
	}
	small, sum := raw("small")
	stranger, _ := raw("of another image")
	// Another file has one of its leaves, and comes first.
	alike := largeFile(t, 9)
	alike.Leaves = large.Leaves[4*sumSize:5*sumSize] + strings.Repeat("x", 8*sumSize)
	tables := []*fileTable{
		{files: []fileRecord{{sum: sum, size: 5, leaves: -1}}},
		{files: []fileRecord{{sum: [sumSize]byte([]byte(alike.Cid.Hash()[2:])), size: alike.Size}}, leaves: []string{alike.Leaves}},
		{files: []fileRecord{{sum: [sumSize]byte([]byte(large.Cid.Hash()[2:])), size: large.Size}}, leaves: []string{large.Leaves}},
	}
	profile := []cid.Cid{large.Leaf(4), stranger, small, large.Leaf(2), large.Cid}
	var got []cid.Cid
	for part := range named(tables, profile) {
		if part.Leaf == fetch.AllLeaves {
			got = append(got, part.File.Cid)
		} else {
			got = append(got, part.File.Leaf(part.Leaf))
		}
		if part.File.Cid == alike.Cid {
			t.Error("a leaf is taken for one of the file that has fewer of those named")
		}
	}
	if want := []cid.Cid{large.Leaf(4), small, large.Leaf(2), large.Cid}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
