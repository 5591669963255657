package kubo_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// tree is a directory with a plain and a sharded one in it.
func tree(b *dagtest.Builder) (root cid.Cid, files map[string]cid.Cid) {
	files = map[string]cid.Cid{
		"a": b.Raw("small"), "link": b.Symlink("a"), "dir": b.Directory(nil),
		"large": b.File(bytes.Repeat([]byte("0123456789"), 1000), dagtest.How{Leaf: 999, Links: 3}),
	}
	for i := range 100 {
		files[fmt.Sprint("n", i)] = b.Raw(fmt.Sprint(i))
	}
	return b.Directory(map[string]cid.Cid{"plain": b.Directory(files), "sharded": b.Sharded(files, 8)}), files
}

func TestCat(t *testing.T) {
	node := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, node))
	large, c := strings.Repeat("0123456789", 1000), root.String()
	for _, test := range []struct{ query, want string }{
		{"arg=" + files["a"].String(), "small"},
		{"arg=/ipfs/" + c + "/plain/a", "small"},
		{"arg=" + c + "/sharded/large", large},
		{"arg=" + c + "/sharded/large&offset=9990", large[9990:]},
		{"arg=" + c + "/sharded/large&offset=1000&length=17", large[1000:1017]},
		{"arg=" + c + "/plain/large&offset=10000", ""},
		{"arg=" + c + "/plain/large&offset=123456", ""},
		{"arg=" + c + "/plain/large&length=0", ""},
		{"arg=" + c + "/plain/a&arg=" + c + "/plain/n7&arg=" + c + "/plain/a", "small7small"},
		{"arg=" + c + "/plain/a&arg=" + c + "/plain/large&arg=" + c + "/plain/a&offset=3&length=5", "ll012"},
		{"arg=" + c + "/plain/a&arg=" + c + "/plain/a&offset=7&length=9223372036854775807", "all"},
		{"arg=" + c + "/plain/a&offline=true", "small"},
	} {
		rec := call(t, node, "cat?"+test.query, nil)
		if rec.Code != http.StatusOK || rec.Body.String() != test.want {
			t.Errorf("cat?%s = %d, %.100q, want %.100q", test.query, rec.Code, rec.Body, test.want)
		}
		if n := rec.Header().Get("X-Content-Length"); n != fmt.Sprint(len(test.want)) || rec.Header().Get("X-Stream-Output") != "1" {
			t.Errorf("cat?%s: headers %v", test.query, rec.Header())
		}
	}
}

// TestHostileArguments finds that what is wrong with a request is told as such, and not as a failure of
// the daemon.
func TestHostileArguments(t *testing.T) {
	node := full{Memory: ipfstest.NewMemory()}
	root, _ := tree(dagtest.New(t, node))
	c := root.String()
	paths := map[string]string{
		"none": "", "empty": "?arg=", "nonsense": "?arg=nonsense", "upwards": "?arg=" + c + "/../../etc/passwd", "a name of IPNS": "?arg=/ipns/example.org",
		"long": "?arg=" + c + "/" + strings.Repeat("a", 5000), "deep": "?arg=" + c + strings.Repeat("/a", 1000), "many": "?" + strings.Repeat("arg="+c+"&", 1025),
		"a zero": "?arg=%00", "no UTF-8": "?arg=%ff%fe",
	}
	for command, more := range map[string][]string{
		"cat":        {"offset=-1", "offset=x", "offset=9223372036854775808", "length=-1", "length=1e9", "offline=maybe"},
		"ls":         {"stream=maybe", "size=maybe", "resolve-type=2"},
		"get":        {"archive=x", "compress=x", "compression-level=0", "compression-level=10", "compression-level=x", "arg=" + c},
		"dag/export": {"local-only=true", "offline=x", "arg=" + c}, "block/get": {"offline=x", "arg=" + c}, "block/stat": {"arg=" + c},
		"pin/add": {"recursive=false", "recursive=x", "name=" + strings.Repeat("n", 1025), "ipcs-complete=x"}, "pin/rm": {"recursive=x"},
	} {
		for what, query := range paths {
			if rec := call(t, node, command+query, nil); rec.Code != http.StatusBadRequest || !json.Valid(rec.Body.Bytes()) {
				t.Errorf("%s, path %s: %d %.200s", command, what, rec.Code, rec.Body)
			}
		}
		for _, option := range more {
			if rec := call(t, node, command+"?arg="+c+"/plain/a&"+option, nil); rec.Code != http.StatusBadRequest || !json.Valid(rec.Body.Bytes()) {
				t.Errorf("%s, %.40s: %d %.200s", command, option, rec.Code, rec.Body)
			}
		}
	}
	for _, request := range []string{"repo/gc?silent=x", "repo/stat?size-only=x", "id?arg=12D3KooWOther", "pin/ls?arg=nonsense"} {
		if rec := call(t, node, request, nil); rec.Code != http.StatusBadRequest || !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%.60s: %d %.200s", request, rec.Code, rec.Body)
		}
	}
	for _, request := range []string{"cat?arg=" + c, "cat?arg=" + c + "/plain/link", "cat?arg=" + c + "/plain/absent", "ls?arg=" + c + "/plain/absent/x", "get?compress=true&arg=" + c} {
		if rec := call(t, node, request, nil); rec.Code != http.StatusInternalServerError || !json.Valid(rec.Body.Bytes()) || rec.Header().Get("X-Stream-Output") != "" {
			t.Errorf("%s: %d %s %v", request, rec.Code, rec.Body, rec.Header())
		}
	}
}

func ls(t *testing.T, node ipfs.Node, query string) (objects []struct {
	Hash  string
	Links []struct {
		Name, Hash, Target string
		Size               uint64
		Type               int
	}
}) {
	t.Helper()
	rec := call(t, node, "ls?"+query, nil)
	if rec.Code != http.StatusOK {
		t.Fatalf("ls?%s: %d %s", query, rec.Code, rec.Body)
	}
	for dec := json.NewDecoder(rec.Body); ; {
		part := struct{ Objects any }{}
		part.Objects = &objects
		all := objects
		objects = nil
		err := dec.Decode(&part)
		objects = append(all, objects...)
		if err == io.EOF {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLs(t *testing.T) {
	node := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, node))
	for _, dir := range []string{"plain", "sharded"} {
		path := root.String() + "/" + dir
		objects := ls(t, node, "arg="+path)
		if len(objects) != 1 || objects[0].Hash != path || len(objects[0].Links) != len(files) {
			t.Fatalf("%s: %d objects, %d entries", dir, len(objects), len(objects[0].Links))
		}
		last := ""
		for _, l := range objects[0].Links {
			if l.Name <= last || l.Hash != files[l.Name].String() {
				t.Errorf("%s: %+v after %q", dir, l, last)
			}
			last = l.Name
			switch l.Name {
			case "a":
				if l.Type != 2 || l.Size != 5 {
					t.Errorf("%s: %+v", dir, l)
				}
			case "large":
				if l.Type != 2 || l.Size != 10000 {
					t.Errorf("%s: %+v", dir, l)
				}
			case "dir":
				if l.Type != 1 || l.Size != 0 {
					t.Errorf("%s: %+v", dir, l)
				}
			case "link":
				if l.Type != 4 || l.Target != "a" {
					t.Errorf("%s: %+v", dir, l)
				}
			}
		}
		streamed := ls(t, node, "stream=true&arg="+path)
		names := map[string]bool{}
		for _, o := range streamed {
			names[o.Links[0].Name] = len(o.Links) == 1
		}
		if len(streamed) != len(files) || len(names) != len(files) {
			t.Errorf("%s, streamed: %d objects, %d names", dir, len(streamed), len(names))
		}
	}
	before := node.Counts().Blocks
	objects := ls(t, node, "resolve-type=false&size=false&arg="+root.String())
	if looked := node.Counts().Blocks - before; len(objects[0].Links) != 2 || objects[0].Links[0].Type != 0 || looked != 1 {
		t.Errorf("without a look: %+v, %d blocks read", objects, looked)
	}
	if objects := ls(t, node, "arg="+root.String()+"&arg="+files["dir"].String()+"&arg="+files["large"].String()); len(objects) != 3 || len(objects[1].Links) != 0 || len(objects[2].Links) == 0 {
		t.Errorf("several: %+v", objects)
	}
}

func TestGet(t *testing.T) {
	node := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, node))
	names := func(r io.Reader) (n int, first string) {
		for tr := tar.NewReader(r); ; n++ {
			h, err := tr.Next()
			if err == io.EOF {
				return n, first
			}
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				first = strings.TrimSuffix(h.Name, "/")
			}
		}
	}
	rec := call(t, node, "get?arg="+root.String()+"/sharded", nil)
	if n, first := names(rec.Body); n != len(files)+1 || first != "sharded" || rec.Header().Get("Content-Type") != "application/x-tar" {
		t.Errorf("%d entries, the first %q, %v", n, first, rec.Header())
	}
	rec = call(t, node, "get?archive=true&compress=true&compression-level=9&arg="+root.String(), nil)
	zip, err := gzip.NewReader(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n, first := names(zip); n != 2*len(files)+3 || first != root.String() {
		t.Errorf("compressed: %d entries, the first %q", n, first)
	}
	rec = call(t, node, "get?compress=true&arg="+root.String()+"/plain/large", nil)
	if zip, err = gzip.NewReader(rec.Body); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(zip); err != nil || len(text) != 10000 || rec.Header().Get("Content-Type") != "application/gzip" {
		t.Errorf("a file compressed: %d bytes, %v, %v", len(text), err, rec.Header())
	}
}

// TestExport reads what is exported with the reference implementation, and imports it elsewhere.
func TestExport(t *testing.T) {
	node := ipfstest.NewMemory()
	root, _ := tree(dagtest.New(t, node))
	rec := call(t, node, "dag/export?arg="+root.String(), nil)
	if ct := rec.Header().Get("Content-Type"); ct != "application/vnd.ipld.car" {
		t.Errorf("Content-Type %q", ct)
	}
	exported := rec.Body.Bytes()
	r, err := carv2.NewBlockReader(bytes.NewReader(exported))
	if err != nil || r.Version != 1 || len(r.Roots) != 1 || !r.Roots[0].Equals(root) {
		t.Fatalf("%+v, %v", r, err)
	}
	blocks := map[cid.Cid]bool{}
	for {
		b, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if blocks[b.Cid()] {
			t.Errorf("block %s comes twice", b.Cid())
		}
		blocks[b.Cid()] = true
	}
	if len(blocks) != node.Len() {
		t.Errorf("%d blocks of %d", len(blocks), node.Len())
	}
	other := ipfstest.NewMemory()
	if rec := call(t, other, "dag/import", exported); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"PinErrorMsg":""`) || other.Len() != node.Len() {
		t.Errorf("import: %d %s, %d blocks", rec.Code, rec.Body, other.Len())
	}
	sub := call(t, node, "dag/export?arg="+root.String()+"/plain/dir", nil)
	if r, err := carv2.NewBlockReader(sub.Body); err != nil || len(r.Roots) != 1 || r.Roots[0].Equals(root) {
		t.Errorf("of a path: %+v, %v", r, err)
	}
}

// TestBrokenStreams is of answers whose rest cannot be had: clients that look at the trailer are told
// why there, as Kubo does, and all others see that it is not whole.
func TestBrokenStreams(t *testing.T) {
	node := ipfstest.NewMemory()
	b := dagtest.New(t, node)
	data := make([]byte, 4<<20)
	rand.New(rand.NewSource(1)).Read(data)
	file := b.File(data, dagtest.How{Leaf: 100 << 10, Links: 50, Wrapped: true})
	short := b.Directory(map[string]cid.Cid{"f": file})
	links, err := ipfs.Links(ipfs.Block{Cid: file, Data: call(t, node, "block/get?arg="+file.String(), nil).Body.Bytes()})
	if err != nil || len(links) != 41 {
		t.Fatalf("%d leaves, %v", len(links), err)
	}
	node.SetFault(func(_ string, c cid.Cid) error {
		if c.Equals(links[40]) {
			return errors.New("the disk is\r\nbroken")
		}
		return nil
	})
	server := httptest.NewServer(kubo.NewHandler(node, identity{}, nil))
	defer server.Close()
	for _, command := range []string{"cat?arg=" + file.String(), "dag/export?arg=" + short.String(), "get?arg=" + file.String()} {
		for _, agent := range []string{"go-ipfs-cmds/http", "curl/8"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/api/v0/"+command, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("User-Agent", agent)
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			told := resp.Trailer.Get("X-Stream-Error")
			if resp.StatusCode != http.StatusOK || len(body) < 256<<10 || len(body) >= 4<<20 {
				t.Errorf("%s: %d, %d bytes", command, resp.StatusCode, len(body))
			}
			if cli := agent != "curl/8"; cli != (err == nil) || cli != strings.Contains(told, "the disk is broken") {
				t.Errorf("%s to %s: %v, trailer %q", command, agent, err, told)
			}
		}
	}
	// What fails before anything was sent is an error like any other.
	node.SetFault(func(op string, c cid.Cid) error {
		if c.Equals(links[0]) {
			return errors.New("broken")
		}
		return nil
	})
	if rec := call(t, node, "cat?arg="+file.String(), nil); rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), "broken") || rec.Header().Get("X-Content-Length") != "" {
		t.Errorf("%d %s %v", rec.Code, rec.Body, rec.Header())
	}
}

// TestBodyArguments takes what stock clients read from their standard input.
func TestBodyArguments(t *testing.T) {
	node := ipfstest.NewMemory()
	_, files := tree(dagtest.New(t, node))
	body := []byte(files["a"].String() + "\n\n  /ipfs/" + files["n7"].String() + "  \n")
	if rec := call(t, node, "cat", body); rec.Code != http.StatusOK || rec.Body.String() != "small7" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := call(t, node, "cat?arg="+files["n8"].String(), body); rec.Code != http.StatusOK || rec.Body.String() != "8small7" {
		t.Errorf("both: %d %s", rec.Code, rec.Body)
	}
	for what, body := range map[string][]byte{
		"many": []byte(strings.Repeat(files["a"].String()+"\n", 2000)), "one long": bytes.Repeat([]byte("x"), 1<<20), "empty": {}, "lines": []byte("\n\n"),
	} {
		if rec := call(t, node, "cat", body); rec.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %.100s", what, rec.Code, rec.Body)
		}
	}
}

// FuzzArguments sends anything as the query of any command that reads or pins.
func FuzzArguments(f *testing.F) {
	node := full{Memory: ipfstest.NewMemory()}
	root, _ := tree(dagtest.New(f, node))
	c := root.String()
	for _, command := range []string{"cat", "ls", "get", "dag/export", "block/get", "block/stat", "pin/add", "pin/rm", "pin/ls", "repo/stat", "swarm/connect", "id"} {
		for _, query := range []string{"", "arg=" + c, "arg=" + c + "/plain/a", "arg=" + c + "&offset=1&length=2", "arg=" + c + "&stream=true", "arg=/ipfs/" + c + "/../" + c, "arg=%00&offline=1&timeout=1s"} {
			f.Add(command, query)
		}
	}
	h := kubo.NewHandler(node, identity{}, nil)
	f.Fuzz(func(t *testing.T, command, query string) {
		if strings.Contains(query, "timeout") || strings.ContainsAny(command, "?#%") {
			t.Skip()
		}
		target := url.URL{Path: "/api/v0/" + command, RawQuery: query}
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		req.URL = &target
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		switch rec.Code {
		case http.StatusOK, http.StatusNotFound:
		case http.StatusBadRequest, http.StatusInternalServerError:
			if !json.Valid(rec.Body.Bytes()) {
				t.Errorf("%s?%s: %d %s", command, query, rec.Code, rec.Body)
			}
		default:
			t.Errorf("%s?%s: %d", command, query, rec.Code)
		}
	})
}
