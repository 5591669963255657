package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/gateway"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

const (
	rawType = "application/vnd.ipld.raw"
	carType = "application/vnd.ipld.car"
)

// site is a node with a tree to serve.
type site struct {
	t       *testing.T
	node    *ipfstest.Memory
	handler http.Handler
	root    cid.Cid            // holds plain and sharded, which hold files
	files   map[string]cid.Cid // and "plain" and "sharded"
	large   []byte             // what "large" has, in leaves of 100 bytes
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, node: ipfstest.NewMemory(), large: make([]byte, 1050)}
	rand.New(rand.NewSource(1)).Read(s.large)
	b := dagtest.New(t, s.node)
	s.files = map[string]cid.Cid{"small": b.Raw("small"), "same": b.Raw("small"), "link": b.Symlink("small"), "large": b.File(s.large, dagtest.How{Leaf: 100, Links: 100})}
	for i := range 100 {
		s.files[fmt.Sprint("n", i)] = b.Raw(fmt.Sprint(i))
	}
	plain, sharded := b.Directory(s.files), b.Sharded(s.files, 8)
	s.files["plain"], s.files["sharded"] = plain, sharded
	s.root = b.Directory(map[string]cid.Cid{"plain": plain, "sharded": sharded})
	var err error
	if s.handler, err = gateway.NewHandler(s.node); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a request; headers are name and value by turns.
func (s *site) ask(method, target string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	req := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	return rec
}

func TestRaw(t *testing.T) {
	s := newSite(t)
	c := s.files["small"].String()
	for _, how := range [][]string{{"?format=raw"}, {"", "Accept", rawType}, {"?format=raw", "Accept", "text/html"}} {
		rec := s.ask("GET", "/ipfs/"+c+how[0], how[1:]...)
		if rec.Code != 200 || rec.Body.String() != "small" {
			t.Errorf("%q: %d %s", how, rec.Code, rec.Body)
		}
		h := rec.Header()
		for name, want := range map[string]string{
			"Content-Type": rawType, "X-Content-Type-Options": "nosniff", "Content-Length": "5", "X-Ipfs-Roots": c,
			"Cache-Control": "public, max-age=29030400, immutable", "X-Ipfs-Path": "/ipfs/" + c,
		} {
			if h.Get(name) != want {
				t.Errorf("%q: %s is %q, want %q", how, name, h.Get(name), want)
			}
		}
		if !strings.HasPrefix(h.Get("Content-Disposition"), "attachment; filename=\""+c+".bin\"") || h.Get("Etag") == "" {
			t.Errorf("%q: %v", how, h)
		}
		if again := s.ask("GET", "/ipfs/"+c+how[0], append(slices.Clone(how[1:]), "If-None-Match", h.Get("Etag"))...); again.Code != 304 || again.Body.Len() > 0 {
			t.Errorf("%q, unchanged: %d %s", how, again.Code, again.Body)
		}
		head := s.ask("HEAD", "/ipfs/"+c+how[0], how[1:]...)
		if head.Code != 200 || head.Body.Len() > 0 || head.Header().Get("Content-Length") != "5" {
			t.Errorf("%q, HEAD: %d %s %v", how, head.Code, head.Body, head.Header())
		}
	}
	if rec := s.ask("GET", "/ipfs/"+c, "Accept", rawType, "Range", "bytes=1-3"); rec.Code != 206 || rec.Body.String() != "mal" {
		t.Errorf("a range: %d %s", rec.Code, rec.Body)
	}
	if rec := s.ask("GET", "/ipfs/"+c+"?format=raw&filename=a%22b%0d%0ac.bin"); strings.ContainsAny(rec.Header().Get("Content-Disposition"), "\r\n") {
		t.Errorf("a file name: %q", rec.Header())
	}
	if rec := s.ask("GET", "/ipfs/"+s.root.String()+"?format=raw"); rec.Code != 200 || ipfs.Verify(s.root, rec.Body.Bytes()) != nil {
		t.Errorf("a directory: %d", rec.Code)
	}
	// What everybody probes with: https://specs.ipfs.tech/http-gateways/trustless-gateway/#dedicated-probe-paths
	for _, method := range []string{"GET", "HEAD"} {
		if rec := s.ask(method, "/ipfs/bafkqaaa?format=raw"); rec.Code != 200 || rec.Body.Len() > 0 {
			t.Errorf("%s of the probe: %d %s", method, rec.Code, rec.Body)
		}
	}
}

// TestOnlyTrustless serves nothing that cannot be checked, and nothing but blocks below /ipfs/.
func TestOnlyTrustless(t *testing.T) {
	s := newSite(t)
	c, other := s.root.String(), ipfstest.Blocks(t, 1, 10)[0].Cid
	key, err := mh.Encode(make([]byte, 64), mh.SHA2_512)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, target string
		headers        []string
		want           int
	}{
		{"GET", "/ipfs/" + c, nil, 406},
		{"GET", "/ipfs/" + c + "/plain/small", nil, 406},
		{"GET", "/ipfs/" + c, []string{"Accept", "text/html"}, 406},
		{"GET", "/ipfs/" + c, []string{"X-Forwarded-Host", "localhost", "Host", "localhost"}, 406},
		{"GET", "/ipfs/" + c + "?format=tar", nil, 406},
		{"GET", "/ipfs/" + c + "?format=dag-json", nil, 406},
		{"GET", "/ipfs/" + c + "?format=json", nil, 406},
		{"GET", "/ipfs/" + c + "?format=ipns-record", nil, 406},
		{"GET", "/ipfs/" + c + "/plain?format=raw", nil, 406}, // a block is asked for by its CID
		{"GET", "/ipfs/nonsense?format=raw", nil, 400},
		{"GET", "/ipfs/?format=raw", nil, 400},
		{"GET", "/ipfs/" + other.String() + "?format=raw", nil, 404},
		{"GET", "/ipfs/" + other.String() + "?format=car", nil, 404},
		{"GET", "/ipfs/" + cid.NewCidV1(cid.Raw, key).String() + "?format=raw", nil, 404},
		{"GET", "/ipns/example.org?format=raw", nil, 404},
		{"GET", "/ipns/k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8?format=ipns-record", nil, 404},
		{"GET", "/", nil, 404},
		{"GET", "/api/v0/id", nil, 404},
		{"GET", "/ipfs", nil, 404},
		{"POST", "/ipfs/" + c + "?format=raw", nil, 405},
		{"PUT", "/ipfs/", nil, 405},
		{"DELETE", "/ipfs/" + c, nil, 405},
		{"OPTIONS", "/ipfs/" + c, nil, 405},
		{"GET", "/ipfs/" + c + "?format=car&dag-scope=some", nil, 400},
		{"GET", "/ipfs/" + c + "?format=car&entity-bytes=x:y", nil, 400},
		{"GET", "/ipfs/" + c + "?format=car&entity-bytes=5:1", nil, 400},
		{"GET", "/ipfs/" + c + "?format=car&entity-bytes=99999999999999999999:*", nil, 400},
		{"GET", "/ipfs/" + c + "?format=car&car-version=2", nil, 400},
		{"GET", "/ipfs/" + c + "?format=car&car-dups=maybe", nil, 400},
		{"GET", "/ipfs/" + c, []string{"Accept", carType + "; version=2"}, 400},
		{"GET", "/ipfs/" + other.String() + "/a/b?format=car", nil, 404},
		{"GET", "/ipfs/" + c + strings.Repeat("/a", 100) + "?format=car", nil, 414},
		{"GET", "/ipfs/" + c + "/" + strings.Repeat("a", 5000) + "?format=car", nil, 414},
	} {
		rec := s.ask(test.method, test.target, test.headers...)
		if rec.Code != test.want {
			t.Errorf("%s %.150s %v: %d %.100s, want %d", test.method, test.target, test.headers, rec.Code, rec.Body, test.want)
		}
		if strings.Contains(rec.Header().Get("Content-Type"), "html") || rec.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %.150s: %v", test.method, test.target, rec.Header())
		}
	}
}

// car asks for a CAR, and returns its root and the blocks in their order.
func (s *site) car(target string, headers ...string) (root cid.Cid, order []cid.Cid) {
	s.t.Helper()
	rec := s.ask("GET", target, headers...)
	if rec.Code != 200 || !strings.HasPrefix(rec.Header().Get("Content-Type"), carType+"; version=1") || rec.Header().Get("X-Content-Type-Options") != "nosniff" {
		s.t.Errorf("%s: %d, %v", target, rec.Code, rec.Header())
		return
	}
	r, err := carv2.NewBlockReader(rec.Body)
	if err != nil || len(r.Roots) != 1 || r.Version != 1 {
		s.t.Errorf("%s: %+v, %v", target, r, err)
		return
	}
	for {
		b, err := r.Next() // which checks the hash
		if err == io.EOF {
			return r.Roots[0], order
		}
		if err != nil {
			s.t.Errorf("%s: %v", target, err)
			return
		}
		order = append(order, b.Cid())
	}
}

// leaves are those of "large".
func (s *site) leaves() []cid.Cid {
	s.t.Helper()
	data, err := s.node.Get(s.t.Context(), s.files["large"])
	if err != nil {
		s.t.Fatal(err)
	}
	links, err := ipfs.Links(ipfs.Block{Cid: s.files["large"], Data: data})
	if err != nil || len(links) != 11 {
		s.t.Fatalf("%d leaves, %v", len(links), err)
	}
	return links
}

func TestCar(t *testing.T) {
	s := newSite(t)
	root, at := s.root, "/ipfs/"+s.root.String()
	plain, large, leaves := s.files["plain"], s.files["large"], s.leaves()
	way := []cid.Cid{root, plain}
	whole := slices.Concat(way, []cid.Cid{large}, leaves)
	for _, test := range []struct {
		target string
		want   []cid.Cid
	}{
		{at + "?format=car&dag-scope=block", []cid.Cid{root}},
		{at + "/plain?format=car&dag-scope=block", way},
		{at + "/plain?format=car&dag-scope=entity", way},
		{at + "/plain/link?format=car", slices.Concat(way, []cid.Cid{s.files["link"]})},
		{at + "/plain/large?format=car&dag-scope=block", slices.Concat(way, []cid.Cid{large})},
		{at + "/plain/large?format=car&dag-scope=entity", whole},
		{at + "/plain/large?format=car&dag-scope=all", whole},
		{at + "/plain/large?format=car", whole},
		{at + "/plain/large?format=car&dag-scope=entity&entity-bytes=0:*", whole},
		{at + "/plain/large?format=car&dag-scope=entity&entity-bytes=250:449", slices.Concat(way, []cid.Cid{large}, leaves[2:5])},
		{at + "/plain/large?format=car&dag-scope=entity&entity-bytes=-100:*", slices.Concat(way, []cid.Cid{large}, leaves[9:])},
		{at + "/plain/large?format=car&dag-scope=entity&entity-bytes=0:0", slices.Concat(way, []cid.Cid{large}, leaves[:1])},
		{"/ipfs/" + s.files["small"].String() + "?format=car", []cid.Cid{s.files["small"]}},
	} {
		if _, order := s.car(test.target); !slices.Equal(order, test.want) {
			t.Errorf("%s: %v\nwant %v", test.target, order, test.want)
		}
	}
	if got, _ := s.car(at+"/plain/large", "Accept", carType); !got.Equals(large) {
		t.Errorf("the root of a path is %s", got)
	}
	if _, all := s.car(at + "?format=car"); len(all) != s.node.Len() {
		t.Errorf("all: %d blocks of %d", len(all), s.node.Len())
	}
	// A path that leads nowhere: the blocks that prove it.
	if _, order := s.car(at + "/plain/absent/below?format=car"); !slices.Equal(order, way) {
		t.Errorf("nowhere: %v", order)
	}
	twice := 0
	_, with := s.car(at+"/plain", "Accept", carType+"; dups=y")
	for _, c := range with {
		if c.Equals(s.files["small"]) {
			twice++
		}
	}
	if _, without := s.car(at+"/plain", "Accept", carType+"; dups=n"); twice != 2 || len(without) != len(with)-1 {
		t.Errorf("%d times with duplicates, %d blocks; %d without", twice, len(with), len(without))
	}
}

// TestCarOfShards has the shards on the way to a name, no others, and for a listing all of them.
func TestCarOfShards(t *testing.T) {
	s := newSite(t)
	at := "/ipfs/" + s.root.String() + "/sharded"
	shards := map[cid.Cid]bool{}
	for _, c := range s.node.Cids() {
		if c.Prefix().Codec == cid.DagProtobuf {
			shards[c] = true
		}
	}
	for _, other := range []cid.Cid{s.root, s.files["plain"], s.files["large"], s.files["link"]} {
		delete(shards, other)
	}
	_, order := s.car(at + "?format=car&dag-scope=entity")
	found := map[cid.Cid]bool{}
	for _, c := range order[1:] {
		found[c] = true
	}
	if !maps.Equal(found, shards) || !order[0].Equals(s.root) {
		t.Errorf("%d shards of %d", len(found), len(shards))
	}
	_, order = s.car(at + "/n42?format=car")
	if len(order) < 4 || len(order) > 6 || !order[1].Equals(s.files["sharded"]) || !order[len(order)-1].Equals(s.files["n42"]) {
		t.Errorf("the way to a file: %v", order)
	}
}

// TestMissing does not take half a CAR for a whole one.
func TestMissing(t *testing.T) {
	s := newSite(t)
	s.node.Remove(s.leaves()[7])
	at := "/ipfs/" + s.root.String()
	rec := s.ask("GET", at+"/plain/large?format=car")
	r, err := carv2.NewBlockReader(rec.Body)
	for n := 0; err == nil; n++ {
		if _, err = r.Next(); err == nil && n > 10 {
			t.Fatal("more blocks than there are")
		}
	}
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("it looks whole: %d", rec.Code)
	}
	if _, order := s.car(at + "/plain/large?format=car&dag-scope=entity&entity-bytes=0:99"); len(order) != 4 {
		t.Errorf("what is here: %v", order)
	}
	s.node.Remove(s.files["plain"])
	if rec := s.ask("GET", at+"/plain/large?format=car"); rec.Code != 404 {
		t.Errorf("the way is not here: %d", rec.Code)
	}
	s.node.SetFault(func(string, cid.Cid) error { return errors.New("the disk is broken") })
	if rec := s.ask("GET", at+"?format=raw"); rec.Code != 500 {
		t.Errorf("a broken disk: %d", rec.Code)
	}
}

// TestHeadIsCheap reads no whole DAG for a CAR that nobody gets.
func TestHeadIsCheap(t *testing.T) {
	s := newSite(t)
	// Over a connection: then net/http decides what of an answer is sent.
	server := httptest.NewServer(s.handler)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, server.URL+"/ipfs/"+s.root.String()+"?format=car", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), carType) {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	server.Close() // waits for what is going on
	if n := s.node.Counts().Blocks; n > 10 {
		t.Errorf("%d blocks were read of %d", n, s.node.Len())
	}
}

// TestOverConnections goes over connections that are used again, with deadlines of before.
func TestOverConnections(t *testing.T) {
	s := newSite(t)
	server := httptest.NewServer(s.handler)
	defer server.Close()
	for range 3 {
		resp, err := server.Client().Get(server.URL + "/ipfs/" + s.root.String() + "?format=car")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !bytes.Contains(text, []byte("small")) {
			t.Errorf("%d, %d bytes, %v", resp.StatusCode, len(text), err)
		}
	}
}

// counting is a source that says whom it was asked for what.
type counting struct {
	gateway.Source
	asked map[cid.Cid]int
}

func (c counting) Get(ctx context.Context, id cid.Cid) ([]byte, error) {
	c.asked[id]++
	return c.Source.Get(ctx, id)
}

// TestLongPathsAreBounded reads a bounded number of blocks for the longest path that is taken.
func TestLongPathsAreBounded(t *testing.T) {
	node := ipfstest.NewMemory()
	b := dagtest.New(t, node)
	c := b.Raw("end")
	for range 64 {
		c = b.Directory(map[string]cid.Cid{"a": c})
	}
	src := counting{node, map[cid.Cid]int{}}
	h, err := gateway.NewHandler(src)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/ipfs/"+c.String()+strings.Repeat("/a", 64)+"?format=car", nil))
	reads := 0
	for _, n := range src.asked {
		reads += n
	}
	if rec.Code != 200 || reads > 64*64 {
		t.Errorf("%d, %d reads of %d blocks", rec.Code, reads, node.Len())
	}
}
