package kubo_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// form wraps a file as stock clients do.
func form(t testing.TB, file []byte) (body *bytes.Buffer, contentType string) {
	t.Helper()
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	part, err := w.CreateFormFile("file", "stdin")
	if err == nil {
		_, err = part.Write(file)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return body, w.FormDataContentType()
}

// call sends a command, with a file if there is one.
func call(t testing.TB, node ipfs.Node, command string, file []byte, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/api/v0/"+command, nil)
	if file != nil {
		body, contentType := form(t, file)
		req = httptest.NewRequest(http.MethodPost, "/api/v0/"+command, body)
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	kubo.NewHandler(node, identity{}, nil).ServeHTTP(rec, req)
	return rec
}

// car makes a CARv1 with the reference implementation.
func car(t testing.TB, blocks ...ipfs.Block) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := storage.NewWritable(&out, []cid.Cid{blocks[0].Cid}, carv2.WriteAsCarV1(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := w.Put(t.Context(), b.Cid.KeyString(), b.Data); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestMethodsAndOrigins(t *testing.T) {
	h := kubo.NewHandler(ipfstest.NewMemory(), identity{}, nil)
	for _, test := range []struct {
		method, path, header, value string
		want                        int
	}{
		{"POST", "/api/v0/version", "", "", 200},
		{"GET", "/api/v0/version", "", "", 405},
		{"PUT", "/api/v0/version", "", "", 405},
		{"OPTIONS", "/api/v0/version", "", "", 204},
		{"POST", "/api/v0/version", "Origin", "https://example.org", 403},
		{"POST", "/api/v0/version", "Referer", "https://example.org/", 403},
		{"POST", "/api/v0/version", "User-Agent", "Mozilla/5.0", 403},
		{"POST", "/api/v0/shutdown", "", "", 404},
		{"POST", "/version", "", "", 404},
		{"POST", "/api/v0/version?timeout=soon", "", "", 400},
		{"POST", "/api/v0/version?a=%zz", "", "", 400},
		{"POST", "/api/v0/block/get", "", "", 400},
		{"POST", "/api/v0/block/get?arg=nonsense", "", "", 400},
		{"POST", "/api/v0/block/get?arg=bafkqabtimvwgy3yk", "", "", 400}, // identity
		{"POST", "/api/v0/block/put", "", "", 400},
		{"POST", "/api/v0/dag/import", "", "", 400},
		{"POST", "/api/v0/pin/add", "", "", 400},
		{"POST", "/api/v0/pin/ls?type=odd", "", "", 400},
		{"POST", "/api/v0/pin/ls?stream=maybe", "", "", 400},
	} {
		req := httptest.NewRequest(test.method, test.path, nil)
		if test.header != "" {
			req.Header.Set(test.header, test.value)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		if rec.Code != test.want {
			t.Errorf("%s %s (%s %s) = %d %s, want %d", test.method, test.path, test.header, test.value, rec.Code, rec.Body, test.want)
		}
	}
}

// TestShapes holds answers to what Kubo 0.43 gives.
func TestShapes(t *testing.T) {
	b := ipfstest.Blocks(t, 1, 100)[0]
	c := b.Cid.String()
	node := ipfstest.NewMemory()
	absent := ipfstest.Blocks(t, 1, 99)[0].Cid.String()
	for _, test := range []struct {
		command string
		file    []byte
		want    string
	}{
		{"block/put", b.Data, `{"Key":"` + c + `","Size":100}`},
		{"block/stat?arg=" + c, nil, `{"Key":"` + c + `","Size":100}`},
		{"block/stat?arg=/ipfs/" + c + "&offline=true", nil, `{"Key":"` + c + `","Size":100}`},
		{"pin/add?name=n&arg=" + c, nil, `{"Pins":["` + c + `"]}`},
		{"pin/ls", nil, `{"Keys":{"` + c + `":{"Type":"recursive","Name":""}}}`},
		{"pin/ls?names=true", nil, `{"Keys":{"` + c + `":{"Type":"recursive","Name":"n"}}}`},
		{"pin/ls?stream=true&name=n", nil, `{"Cid":"` + c + `","Name":"n","Type":"recursive"}`},
		{"pin/ls?type=direct", nil, `{"Keys":{}}`},
		{"pin/rm?name=other&arg=" + c, nil, `{"Message":"` + c + `: not pinned or pinned indirectly","Code":0,"Type":"error"}`},
		{"pin/rm?arg=" + c, nil, `{"Pins":["` + c + `"]}`},
		{"dag/import?stats=true", car(t, b), `{"Root":{"Cid":{"/":"` + c + `"},"PinErrorMsg":""}}` + "\n" + `{"Stats":{"BlockCount":1,"BlockBytesCount":100}}`},
		{"dag/import?pin-roots=false", car(t, b), ""},
		{"id", nil, `{"Addresses":["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWSelf"],"AgentVersion":"ipcs","ID":"12D3KooWSelf","Protocols":[],"PublicKey":""}`},
		{"swarm/peers", nil, `{"Peers":[{"Addr":"/ip4/127.0.0.1/tcp/4002","Peer":"12D3KooWPeer"}]}`},
		{"block/stat?offline=true&arg=" + absent, nil, `{"Message":"block not found: ipld: could not find ` + absent + `","Code":0,"Type":"error"}`},
	} {
		rec := call(t, node, test.command, test.file)
		if got := strings.TrimSpace(rec.Body.String()); got != test.want {
			t.Errorf("%s = %s\nwant %s", test.command, got, test.want)
		}
		if ct := rec.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s: Content-Type %q", test.command, ct)
		}
	}
	if rec := call(t, node, "block/get?arg="+c, nil); !bytes.Equal(rec.Body.Bytes(), b.Data) {
		t.Errorf("block/get = %d bytes", rec.Body.Len())
	}
	var v struct{ Version string }
	if err := json.Unmarshal(call(t, node, "version", nil).Body.Bytes(), &v); err != nil || v.Version == "" {
		t.Errorf("version: %+v, %v", v, err)
	}
}

func section(parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

func TestBadImports(t *testing.T) {
	blocks := ipfstest.Blocks(t, 3, 1000)
	good := car(t, blocks...)
	header := good[:len(good)-3*(2+36+1000)]
	var v2 bytes.Buffer
	if err := carv2.WrapV1(bytes.NewReader(good), &v2); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		car  []byte
		want string
	}{
		"empty":               {[]byte{}, "CAR header"},
		"garbage":             {[]byte("this is no CAR"), "CAR header"},
		"huge header":         {binary.AppendUvarint(nil, 1<<40), "CAR header"},
		"version 2":           {v2.Bytes(), "CARv2"},
		"truncated block":     {good[:len(good)-1], "unexpected EOF"},
		"truncated at length": {good[:len(good)-1036], "unexpected EOF"},
		"truncated length":    {append(good[:len(good):len(good)], 0x80), "unexpected EOF"},
		"wrong bytes":         {append(header[:len(header):len(header)], section(blocks[0].Cid.Bytes(), blocks[1].Data)...), "does not match"},
		"huge section":        {append(header[:len(header):len(header)], binary.AppendUvarint(nil, 3<<20)...), "larger than"},
		"empty section":       {append(header[:len(header):len(header)], 0), "CID"},
		"no CID":              {append(header[:len(header):len(header)], section([]byte("nonsense"))...), "CID"},
		"identity CID":        {append(header[:len(header):len(header)], section([]byte("\x01\x55\x00\x02hi"), []byte("hi"))...), "sha2-256"},
	} {
		t.Run(name, func(t *testing.T) {
			node := ipfstest.NewMemory()
			rec := call(t, node, "dag/import?stats=true", test.car)
			if rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), test.want) {
				t.Errorf("%d %s; want 400 and %q", rec.Code, rec.Body, test.want)
			}
			if node.Counts().Pins != 0 || node.Len() > 0 {
				t.Errorf("left behind: %d blocks, %d pins", node.Len(), node.Counts().Pins)
			}
		})
	}
}

// TestImportInBatches checks that an import is not gathered in memory.
func TestImportInBatches(t *testing.T) {
	node := ipfstest.NewMemory()
	blocks := ipfstest.Blocks(t, 40, 1<<20)
	c := client(t, serveUnix(t, kubo.NewHandler(node, identity{}, nil)))
	if err := c.Put(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
	if puts := node.Counts().Puts; puts != 5 || node.Len() != 40 {
		t.Errorf("%d blocks in %d batches, want 40 in 5", node.Len(), puts)
	}
	full := errors.New("no space left on device")
	node.SetFault(func(op string, _ cid.Cid) error {
		if op == "put" {
			return full
		}
		return nil
	})
	if err := c.Put(t.Context(), blocks...); err == nil || !strings.Contains(err.Error(), full.Error()) {
		t.Errorf("Put on a full disk: %v", err)
	}
}

func FuzzImport(f *testing.F) {
	blocks := ipfstest.Blocks(f, 3, 40)
	good := car(f, blocks...)
	for _, seed := range [][]byte{good, good[:len(good)-1], good[:60], {}, {0}, []byte("\x0a\xa1\x67version\x02"), binary.AppendUvarint(nil, 1<<62)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		node := ipfstest.NewMemory()
		rec := call(t, node, "dag/import?stats=true&pin-roots=false", data)
		if rec.Code != http.StatusOK && rec.Code != http.StatusBadRequest {
			t.Errorf("status %d: %s", rec.Code, rec.Body)
		}
		if rec.Code == http.StatusBadRequest && !json.Valid(rec.Body.Bytes()) {
			t.Errorf("error is no JSON: %s", rec.Body)
		}
	})
}

// TestSeeds makes sure that the fuzz corpus is where the fuzzer looks.
func TestSeeds(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzImport/*")
	if err != nil || len(seeds) < 4 {
		t.Fatalf("%d seeds, %v; want at least 4", len(seeds), err)
	}
	for _, s := range seeds {
		if data, err := os.ReadFile(s); err != nil || !strings.HasPrefix(string(data), "go test fuzz v1\n") {
			t.Errorf("seed %s: %v", s, err)
		}
	}
}
