package layer

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
)

// A vector is a case of spec/testdata, for other implementations too: bytes, and the name of
// the error that they must cause, empty for none.
type vector struct {
	Name  string `json:"name"`
	Hex   string `json:"hex"`
	Error string `json:"error"`
}

// vectorErrors are the names of errors in vectors.
var vectorErrors = map[string]error{
	"":      nil,
	"index": ErrIndex,
	"root":  ErrRoot,
	"limit": ErrTooLarge,
	"xattr": ErrXattr,
	"file":  ipfs.ErrFile,
}

func readVectors(t *testing.T, name string) []vector {
	t.Helper()
	b, err := os.ReadFile("../spec/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("%s has %d vectors", name, len(all))
	}
	return all
}

func (v vector) check(t *testing.T, err error) {
	t.Helper()
	want, ok := vectorErrors[v.Error]
	if !ok {
		t.Fatalf("%s: no error is called %q", v.Name, v.Error)
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", v.Name, err, want)
	}
}

func TestIndexVectors(t *testing.T) {
	for _, v := range readVectors(t, "index.json") {
		b, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		x, err := DecodeIndex(b)
		v.check(t, err)
		if err == nil {
			if again, err := EncodeIndex(x); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s: written as %x, %v", v.Name, again, err)
			}
		}
	}
}

func TestRootVectors(t *testing.T) {
	for _, v := range readVectors(t, "root.json") {
		b, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		block, err := ipfs.NewBlock(cid.DagProtobuf, b)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parseRoot(block)
		v.check(t, err)
	}
}
