package layer

import (
	"fmt"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/ipfs/go-cid"
)

// A directoryVector is a directory of names that are numbers, padded with zeros.
type directoryVector struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	Width int    `json:"width"`
	Cid   string `json:"cid"`
	Tsize uint64 `json:"tsize"`
}

func runDirectoryVectors(t *testing.T, b []byte) {
	for _, v := range layertest.DecodeCases[directoryVector](t, b) {
		t.Run(v.Name, func(t *testing.T) {
			if got := v.built(t); got != v {
				t.Errorf("got %+v, want %+v", got, v)
			}
		})
	}
}

// built is the vector with what its directory becomes.
func (v directoryVector) built(t *testing.T) directoryVector {
	t.Helper()
	const body = "hello"
	leaf, err := ipfs.NewBlock(cid.Raw, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	links := make([]link, v.Count)
	for i := range links {
		links[i] = link{fmt.Sprintf("%0*d", v.Width, i), leaf.Cid, uint64(len(body))}
	}
	dir, err := buildDirectory(t.Context(), links, func(ipfs.Block) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	v.Cid, v.Tsize = dir.cid.String(), dir.tsize
	return v
}

// directoryVectors are the cases of directories.json. A link of a name of 16 bytes has 60,
// and the data of a directory 4: of 4,369 names, it has 262,144 bytes.
func directoryVectors(t *testing.T) []directoryVector {
	t.Helper()
	all := []directoryVector{
		{Name: "no name", Count: 0, Width: 1},
		{Name: "one name", Count: 1, Width: 1},
		{Name: "the largest of one node", Count: 4369, Width: 16},
		{Name: "the smallest that is sharded", Count: 4370, Width: 16},
		{Name: "short names", Count: 30000, Width: 5},
		{Name: "names of 12 bytes", Count: 5000, Width: 12},
		{Name: "names of 31 bytes", Count: 4000, Width: 31},
		{Name: "names of 40 bytes", Count: 4000, Width: 40},
		{Name: "names of 255 bytes", Count: 1000, Width: 255},
	}
	for i, v := range all {
		all[i] = v.built(t)
	}
	return all
}
