package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// maxManifest is how large one may be.
	maxManifest = 4 << 20
	// A client has slowWrite to read an answer, and a second for each slowRate bytes.
	slowWrite, slowRate = time.Minute, 64 << 10
)

// A request is what is asked for.
type request struct {
	digest   digest.Digest
	source   source
	manifest bool
}

var errNoRequest = errors.New("no manifest and no blob by its digest: a mirror has no tags, and nothing else")

// parse parses a request: a path after Path, and the host that it is for.
func parse(path, namespace string) (request, error) {
	words := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	n := len(words)
	if !strings.HasPrefix(path, "/v2/") || n < 3 {
		return request{}, errNoRequest
	}
	r := request{digest: digest.Digest(words[n-1]), manifest: words[n-2] == "manifests"}
	if !r.manifest && words[n-2] != "blobs" || r.digest.Validate() != nil {
		return request{}, errNoRequest
	}
	r.source.manifest = r.manifest
	if namespace != "" {
		r.source.repository = namespace + "/" + strings.Join(words[:n-2], "/")
	}
	return r, nil
}

// ServeHTTP implements http.Handler. The path is that after Path.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff") // it is whatever an image says
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "a mirror is read-only")
		return
	}
	r, err := parse(req.URL.Path, req.URL.Query().Get("ns"))
	if err != nil {
		refuse(w, http.StatusNotFound, "UNSUPPORTED", err.Error())
		return
	}
	timed := http.NewResponseController(w)
	_ = timed.SetWriteDeadline(time.Now().Add(fetchTime + slowWrite)) // in a test it has none
	file, f, err := m.open(req.Context(), r)
	if err != nil {
		m.asked.Add(r.digest, r.source)
		m.Logger.Debug("the mirror has not got it", "digest", r.digest.String(), "err", err)
		code := "BLOB_UNKNOWN"
		if r.manifest {
			code = "MANIFEST_UNKNOWN"
		}
		refuse(w, http.StatusNotFound, code, err.Error())
		return
	}
	defer file.Close()
	_ = timed.SetWriteDeadline(time.Now().Add(slowWrite + time.Duration(f.Size/slowRate)*time.Second))
	m.Logger.Debug("mirrored", "digest", r.digest.String(), "bytes", f.Size)
	m.send(w, req, r, file, f)
}

// send serves a file.
func (m *Mirror) send(w http.ResponseWriter, req *http.Request, r request, file *os.File, f ipfs.File) {
	mediaType, content := "application/octet-stream", io.ReadSeeker(file)
	if r.manifest {
		data, err := io.ReadAll(io.LimitReader(file, maxManifest+1))
		if err == nil {
			mediaType, err = typeOf(data)
		}
		if err != nil || int64(len(data)) != f.Size {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "what has this digest is no manifest")
			return
		}
		content = bytes.NewReader(data)
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", r.digest.String())
	w.Header().Set("ETag", strconv.Quote(r.digest.String()))
	http.ServeContent(w, req, "", time.Time{}, content)
}

// typeOf returns the media type of a manifest.
func typeOf(data []byte) (string, error) {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Config    json.RawMessage   `json:"config"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", err
	}
	switch {
	case m.MediaType != "":
		return m.MediaType, nil
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case m.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fs.ErrInvalid
}

// refuse answers with an error of the distribution specification.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}}) // whoever asked may be gone
}
