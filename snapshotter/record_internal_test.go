//go:build linux

package snapshotter

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
)

// TestLazyRecording has files of two images read through the lazy file system, where the kernel
// does not tell what is opened: each recording takes those of its image.
func TestLazyRecording(t *testing.T) {
	r := newRecorder(0, slog.New(slog.DiscardHandler), func(digest.Digest, []cid.Cid, bool) error { return nil })
	block := func(content string) cid.Cid {
		b, err := ipfs.NewBlock(cid.Raw, []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return b.Cid
	}
	ours, shared, theirs := block("ours"), block("shared"), block("theirs")
	record := func(files ...cid.Cid) *recording {
		r.mu.Lock()
		defer r.mu.Unlock()
		rec := r.newRecording(candidate{find: func(c cid.Cid) (ipfs.File, bool) { return ipfs.File{Cid: c, Size: 4}, slices.Contains(files, c) }}, 0)
		rec.takeReads()
		return rec
	}
	one, two := record(ours, shared), record(theirs, shared)
	for _, c := range []cid.Cid{theirs, ours, shared} {
		r.observe(ipfs.File{Cid: c, Size: 4}, 0, 4)
	}
	if files, _ := one.stop(); !slices.Equal(files, []cid.Cid{ours, shared}) {
		t.Errorf("recorded of one image: %v", files)
	}
	if files, _ := two.stop(); !slices.Equal(files, []cid.Cid{theirs, shared}) {
		t.Errorf("recorded of the other: %v", files)
	}
}
