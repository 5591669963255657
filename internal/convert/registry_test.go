package convert_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// startRegistry starts a stock registry and returns its host:port. With a password it
// wants user "user" and that password.
func startRegistry(t *testing.T, password string) string {
	t.Helper()
	bin := filepath.Join(labtest.Cache(t), "bin")
	if err := tools.Ensure(t.Context(), bin, t.Logf, "registry"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := "version: 0.1\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp: {addr: \"127.0.0.1:0\"}\n"
	if password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "htpasswd"), []byte("user:"+string(hash)+"\n"))
		config += "auth: {htpasswd: {realm: test, path: " + dir + "/htpasswd}}\n"
	}
	writeFile(t, filepath.Join(dir, "config.yml"), []byte(config))
	cmd := exec.Command(filepath.Join(bin, "registry"), "serve", filepath.Join(dir, "config.yml"))
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, drained := listening(t, stderr)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL) // it is done if it is gone
		<-drained
		_ = cmd.Wait() // killed
	})
	return addr
}

// listening waits until the registry's log tells its address, and goes on reading the
// log until it ends, when drained is closed.
func listening(t *testing.T, log io.Reader) (addr string, drained <-chan struct{}) {
	t.Helper()
	found, done := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(done)
		pattern := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
		scanner := bufio.NewScanner(log)
		for scanner.Scan() {
			if m := pattern.FindStringSubmatch(scanner.Text()); m != nil && len(found) == 0 {
				found <- m[1]
			}
		}
	}()
	select {
	case addr = <-found:
	case <-done:
		t.Fatal("the registry ended before it listened")
	}
	return addr, done
}

// dockerConfig makes text the config.json that credentials are taken from.
func dockerConfigFile(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), []byte(text))
	t.Setenv("DOCKER_CONFIG", dir)
}

// upload pushes the image of src to a reference.
func upload(t *testing.T, src *memory, ref string) {
	t.Helper()
	dst := openTarget(t, convert.Access{}, ref)
	var push func(desc ocispec.Descriptor)
	push = func(desc ocispec.Descriptor) {
		var doc struct {
			Config            *ocispec.Descriptor
			Layers, Manifests []ocispec.Descriptor
		}
		if isDocument(desc.MediaType) && json.Unmarshal(src.blobs[desc.Digest], &doc) == nil {
			for _, c := range append(doc.Layers, doc.Manifests...) {
				push(c)
			}
			if doc.Config != nil {
				push(*doc.Config)
			}
		}
		if desc.Digest == src.top.Digest {
			if err := dst.Tag(t.Context(), desc, src.blobs[desc.Digest]); err != nil {
				t.Fatal(err)
			}
		} else if err := dst.Push(t.Context(), desc, src.blobs[desc.Digest]); err != nil {
			t.Fatal(err)
		}
	}
	push(src.top)
}

func isDocument(mt string) bool {
	return strings.Contains(mt, ".manifest.") || strings.Contains(mt, ".index.")
}

func TestRegistry(t *testing.T) {
	dockerConfigFile(t, "{}")
	host := startRegistry(t, "")
	for _, docker := range []bool{false, true} {
		src := newMemory()
		im := newImage("amd64").files(src, "hello").files(src, "world")
		if docker {
			im.manifest.MediaType, im.manifest.Config.MediaType = dockerManifest, dockerConfig
			im.layers[0].MediaType = dockerLayer
		}
		source := im.store(src)
		upload(t, src, host+"/some/app:1")
		node, dst := ipfstest.NewMemory(), newMemory()
		report := mustConvert(t, convert.Options{
			Source: openSource(t, convert.Access{}, host+"/some/app:1"),
			Target: openTarget(t, convert.Access{}, host+"/other/app:ipcs"), Node: node,
		})
		if report.Manifests[0].Source != source.Digest {
			t.Errorf("converted %s, want %s", report.Manifests[0].Source, source.Digest)
		}
		// What the registry has now is what a conversion into memory makes.
		mustConvert(t, convert.Options{Source: src, Target: dst, Node: node})
		pushed := openSource(t, convert.Access{}, host+"/other/app:ipcs")
		desc, err := pushed.Resolve(t.Context())
		if err != nil || desc.Digest != dst.tagged.Digest || desc.MediaType != ocispec.MediaTypeImageManifest {
			t.Fatalf("the registry has %+v, %v; want %s", desc, err, dst.tagged.Digest)
		}
		for _, l := range report.Manifests[0].Layers {
			fetchBlob(t, pushed, l.Digest, dst.blobs[l.Digest])
		}
	}
}

func fetchBlob(t *testing.T, src convert.Source, d digest.Digest, want []byte) {
	t.Helper()
	rc, err := src.Fetch(t.Context(), ocispec.Descriptor{Digest: d, Size: int64(len(want))})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil || string(got) != string(want) {
		t.Errorf("blob %s is %q, %v; want %q", d, got, err, want)
	}
}

func TestRegistryIndex(t *testing.T) {
	dockerConfigFile(t, "{}")
	host := startRegistry(t, "")
	src := newMemory()
	newIndex(t, src, dockerList, "linux/amd64", "linux/arm64")
	upload(t, src, host+"/app:1")
	report := mustConvert(t, convert.Options{
		Source: openSource(t, convert.Access{}, host+"/app:1"), Target: openTarget(t, convert.Access{}, host+"/app:ipcs"),
		Node: ipfstest.NewMemory(), AllPlatforms: true,
	})
	desc, err := openSource(t, convert.Access{}, host+"/app:ipcs").Resolve(t.Context())
	if err != nil || desc.Digest != report.Digest || desc.MediaType != ocispec.MediaTypeImageIndex || len(report.Manifests) != 2 {
		t.Errorf("the registry has %+v, %v; report %+v", desc, err, report)
	}
}

func TestCredentials(t *testing.T) {
	host := startRegistry(t, "secret")
	auth := func(password string) string {
		token := base64.StdEncoding.EncodeToString([]byte("user:" + password))
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, token)
	}
	bin := t.TempDir()
	helper := "#!/bin/sh\n[ \"$1\" = get ] && echo '{\"Username\":\"user\",\"Secret\":\"secret\"}'\n"
	writeFile(t, filepath.Join(bin, "docker-credential-lab"), []byte(helper))
	if err := os.Chmod(filepath.Join(bin, "docker-credential-lab"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	src := newMemory()
	newImage("amd64").files(src, "hello").store(src)
	for name, c := range map[string]struct {
		config string
		ok     bool
	}{
		"none":           {config: "{}"},
		"wrong":          {config: auth("wrong")},
		"right":          {config: auth("secret"), ok: true},
		"helper":         {config: fmt.Sprintf(`{"credHelpers":{%q:"lab"}}`, host), ok: true},
		"default helper": {config: `{"credsStore":"lab"}`, ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfigFile(t, c.config)
			dst := openTarget(t, convert.Access{}, host+"/app:"+strings.ReplaceAll(name, " ", "-"))
			_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory()})
			_, readErr := openSource(t, convert.Access{}, dst.String()).Resolve(t.Context())
			if c.ok {
				if err != nil || readErr != nil {
					t.Errorf("errors %v and %v", err, readErr)
				}
				return
			}
			for _, err := range []error{err, readErr} {
				if err == nil || !strings.Contains(err.Error(), "docker login "+host) {
					t.Errorf("error %v: want one that says to log in", err)
				}
			}
		})
	}
}

func TestRegistryErrors(t *testing.T) {
	dockerConfigFile(t, "{}")
	host := startRegistry(t, "")
	forbidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer forbidden.Close()
	for ref, says := range map[string]string{
		host + "/absent:1":                            "does not exist",
		"127.0.0.1:1/app:1":                           "cannot be reached",
		forbidden.Listener.Addr().String() + "/app:1": "no right",
	} {
		src := openSource(t, convert.Access{}, ref)
		_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: newMemory(), Node: ipfstest.NewMemory()})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), ref) {
			t.Errorf("%s: error %v, want one with %q and the reference", ref, err, says)
		}
	}
	// That a target cannot be written is found out before any layer is read.
	src := newMemory()
	im := newImage("amd64").files(src, "hello")
	im.store(src)
	dst := openTarget(t, convert.Access{}, forbidden.Listener.Addr().String()+"/app:1")
	_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory()})
	if err == nil || !strings.Contains(err.Error(), "no right") || src.fetched[im.layers[0].Digest] != 0 {
		t.Errorf("error %v after %d reads of the layer", err, src.fetched[im.layers[0].Digest])
	}
}

// flaky is a registry whose connections break in the middle of blobs.
func flaky(t *testing.T, host string, cuts *atomic.Int32) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && cuts.Add(-1) >= 0 {
			w = &cutter{ResponseWriter: w, left: 1 << 20}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// A cutter breaks the connection after some bytes of the body.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		panic(http.ErrAbortHandler) // net/http's way to break a connection
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestResume(t *testing.T) {
	dockerConfigFile(t, "{}")
	host := startRegistry(t, "")
	random := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // never fails
	src := newMemory()
	im := newImage("amd64").files(src, string(random))
	im.store(src)
	upload(t, src, host+"/app:1")
	var cuts atomic.Int32
	cuts.Store(4) // the config is smaller than what passes
	ref := flaky(t, host, &cuts) + "/app:1"
	read := &readCounter{}
	mustConvert(t, convert.Options{
		Source: openSource(t, convert.Access{}, ref), Target: newMemory(), Node: ipfstest.NewMemory(), Progress: read,
	})
	if cuts.Load() > 0 {
		t.Error("no connection was broken: nothing was tested")
	}
	if read.n != im.layers[0].Size {
		t.Errorf("%d bytes read, want %d: what was read is not read again", read.n, im.layers[0].Size)
	}
}

// readCounter counts the bytes of all layers.
type readCounter struct {
	notes
	mu sync.Mutex
	n  int64
}

func (r *readCounter) Layer(convert.LayerInfo) convert.LayerProgress { return r }
func (r *readCounter) Read(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += n
}
