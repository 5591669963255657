package layer

import (
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

const (
	// profileHeader begins a profile, and says its version.
	profileHeader = "ipcs profile 1\n"
	// profileEntry is the length of one CID in it.
	profileEntry = 4 + sumSize
	// MaxProfile is how many files and leaves a profile may name: what fits into a block.
	MaxProfile = (MaxProfileBlock - len(profileHeader)) / profileEntry
)

// EncodeProfile encodes a profile: the files that a container reads first, in order, and of
// large files the leaves (spec/image.md, "Profile"). It refuses what DecodeProfile would refuse.
func EncodeProfile(files []cid.Cid) ([]byte, error) {
	b := make([]byte, 0, len(profileHeader)+len(files)*profileEntry)
	b = append(b, profileHeader...)
	for _, c := range files {
		b = append(b, c.Bytes()...)
	}
	if _, err := DecodeProfile(b); err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return b, nil
}

// DecodeProfile decodes a profile. Each list of files and leaves has one encoding.
func DecodeProfile(b []byte) ([]cid.Cid, error) {
	if len(b) > MaxProfileBlock {
		return nil, fmt.Errorf("decode profile: %w (%d bytes)", ErrTooLarge, MaxProfileBlock)
	}
	entries, ok := strings.CutPrefix(string(b), profileHeader)
	if !ok {
		return nil, fmt.Errorf("decode profile: %w: it does not begin with %q", ErrProfile, profileHeader)
	}
	if len(entries)%profileEntry != 0 {
		return nil, fmt.Errorf("decode profile: %w: %d bytes of CIDs", ErrProfile, len(entries))
	}
	files := make([]cid.Cid, 0, len(entries)/profileEntry)
	seen := make(map[cid.Cid]struct{}, cap(files))
	for ; entries != ""; entries = entries[profileEntry:] {
		n, c, err := cid.CidFromBytes([]byte(entries[:profileEntry]))
		if err != nil || n != profileEntry || !isFile(c) {
			return nil, fmt.Errorf("decode profile: %w: entry %d is no CID of a file", ErrProfile, len(files)+1)
		}
		if _, twice := seen[c]; twice {
			return nil, fmt.Errorf("decode profile: %w: %s stands there twice", ErrProfile, c)
		}
		seen[c] = struct{}{}
		files = append(files, c)
	}
	return files, nil
}

// isFile says whether a CID can be that of a file, or of a leaf of one.
func isFile(c cid.Cid) bool {
	p := c.Prefix()
	return p.Version == 1 && (p.Codec == cid.Raw || p.Codec == cid.DagProtobuf) && p.MhType == mh.SHA2_256 && p.MhLength == sumSize
}

// ProfileFiles returns how many files and leaves a profile of so many bytes names.
func ProfileFiles(size int64) int {
	return max(0, int(size)-len(profileHeader)) / profileEntry
}
