package layer

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/ipfs/go-cid"
)

// profileVectors are the cases of profile.json.
func profileVectors(t *testing.T) []vector {
	t.Helper()
	of := func(codec uint64, content string) []byte {
		b, err := ipfs.NewBlock(codec, []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return b.Cid.Bytes()
	}
	const header = "ipcs profile 1\n"
	raw, dag := of(cid.Raw, "a"), of(cid.DagProtobuf, "")
	with := func(at int, value byte) []byte {
		b := bytes.Clone(raw)
		b[at] = value
		return b
	}
	c := func(name, err string, parts ...[]byte) vector {
		return vector{name, hex.EncodeToString(bytes.Join(parts, nil)), err}
	}
	return []vector{
		c("no files", "", []byte(header)),
		c("a file of one leaf", "", []byte(header), raw),
		c("a file of several leaves first", "", []byte(header), dag, raw),
		c("one digest, as a leaf and as a file of several", "", []byte(header), raw, with(1, cid.DagProtobuf)),
		c("nothing", "profile"),
		c("no header", "profile", raw),
		c("another version", "profile", []byte("ipcs profile 2\n"), raw),
		c("a header without its end", "profile", []byte("ipcs profile 1")),
		c("a header that ends as on Windows", "profile", []byte("ipcs profile 1\r\n"), raw),
		c("a file twice", "profile", []byte(header), raw, dag, raw),
		c("a part of a CID", "profile", []byte(header), raw[:len(raw)-1]),
		c("a CID of version 0", "profile", []byte(header), dag[2:], dag[:2]),
		c("another version of CIDs", "profile", []byte(header), with(0, 2)),
		c("another codec", "profile", []byte(header), with(1, 0x71)),
		c("another hash", "profile", []byte(header), with(2, 0x1b)),
		c("a shorter hash", "profile", []byte(header), with(3, 31)),
		c("bytes after", "profile", []byte(header), raw, []byte("\n")),
	}
}

func runProfileVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[vector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			files, err := DecodeProfile(raw)
			if checkWord(t, err, v.Error); err != nil {
				return
			}
			if again, err := EncodeProfile(files); err != nil || !bytes.Equal(again, raw) {
				t.Errorf("it is written as %x, %v", again, err)
			}
		})
	}
}

// TestProfileLimit fills a block.
func TestProfileLimit(t *testing.T) {
	files := make([]cid.Cid, MaxProfile+1)
	for i := range files {
		files[i] = ipfs.RawCid(string(append(make([]byte, sumSize-4), byte(i>>24), byte(i>>16), byte(i>>8), byte(i))))
	}
	b, err := EncodeProfile(files[:MaxProfile])
	if err != nil || len(b) > MaxProfileBlock {
		t.Errorf("%d files take %d bytes: %v", MaxProfile, len(b), err)
	}
	_, err = EncodeProfile(files)
	checkWord(t, err, "limit")
}
