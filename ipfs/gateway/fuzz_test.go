package gateway_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs/gateway"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

func FuzzRequest(f *testing.F) {
	node := ipfstest.NewMemory()
	b := dagtest.New(f, node)
	file := b.File(bytes.Repeat([]byte("0123456789"), 100), dagtest.How{Leaf: 100, Links: 3})
	c := b.Directory(map[string]cid.Cid{"f": file, "s": b.Sharded(map[string]cid.Cid{"a": b.Raw("a"), "b": b.Raw("b")}, 8)}).String()
	h, err := gateway.NewHandler(node)
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"/ipfs/" + c, "/ipfs/" + c + "/f", "/ipfs/" + c + "/s/a", "/ipfs/" + c + "/../x", "/ipns/" + c, "/ipfs/bafkqaaa", "/ipfs/" + c + "//f/"} {
		for _, query := range []string{"format=raw", "format=car&dag-scope=entity&entity-bytes=5:-1", "format=car&car-dups=y&car-order=unk", "format=tar&filename=%0d", ""} {
			f.Add(path, query, "application/vnd.ipld.car;version=1;order=dfs;dups=y")
		}
	}
	f.Fuzz(func(t *testing.T, path, query, accept string) {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.URL = &url.URL{Path: path, RawQuery: query}
		req.RequestURI = req.URL.RequestURI()
		req.Header.Set("Accept", accept)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		switch ct := rec.Header().Get("Content-Type"); {
		case rec.Code >= 500:
			t.Errorf("%q?%q, %q: %d %s", path, query, accept, rec.Code, rec.Body)
		case rec.Code == 200 && ct != rawType && !strings.HasPrefix(ct, carType):
			t.Errorf("%q?%q, %q: %s", path, query, accept, ct)
		}
	})
}
