package e2e

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/internal/imagedir/imagedirtest"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/internal/registry"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// TestConformance runs the suite of OCI's distribution specification against the registry, as one
// that is read-only: on an index of two images, by both kinds of its CID, and on the daemon with an
// image that was converted.
func TestConformance(t *testing.T) {
	labtest.Tools(t, tools.Conformance...)
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64", "arm64")
	s := httptest.NewServer(registry.NewHandler(node, registry.Options{}))
	defer s.Close()
	data := readOnly{manifests: []digest.Digest{made.Top.Digest}}
	for i, m := range made.Manifests {
		data.manifests = append(data.manifests, m.Digest)
		data.blobs = append(data.blobs, made.Configs[i].Digest, made.Layers[i].Digest)
	}
	top, err := mediatype.BlobCid(made.Top.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]string{"directory": made.Root.String(), "manifest": top.String()} {
		t.Run(name, func(t *testing.T) { data.conforms(t, strings.TrimPrefix(s.URL, "http://"), "ipfs/"+root) })
	}
	t.Run("daemon", daemonConforms)
}

func daemonConforms(t *testing.T) {
	labtest.Build(t)
	w := &world{t: t, lab: labtest.Open(t, "conform", 0)}
	m := labtest.Machine(t, w.lab, "machine")
	d, err := m.StartDaemon(t.Context(), lab.DaemonOptions{Registry: true})
	w.must(err)
	image := w.toIPFS(m, d.API, labtest.Image(t, "busybox"))
	body, err := fetchURL(t.Context(), m.HTTPClient(), "http://"+d.Registry+"/v2/ipfs/"+image.Cid+"/manifests/latest")
	w.must(err)
	manifest, err := imagedir.ParseManifest(body)
	w.must(err)
	data := readOnly{manifests: []digest.Digest{digest.Digest(image.Digest)}, blobs: manifest.Names()}
	data.conforms(t, d.Registry, "ipfs/"+image.Cid)
}

// readOnly is what a registry has that the suite cannot write to.
type readOnly struct{ manifests, blobs []digest.Digest }

// tests are how many the suite has for it, but for those that write.
func (r readOnly) tests() int {
	const always = 6                                                       // ping, tags and referrers of what may be empty, a manifest and a tag that are missing, a bad digest
	return always + 1 /* list */ + 2*(1+len(r.manifests)+len(r.blobs)) + 1 /* referrers */
}

// outcomeLine is what the suite prints of a test or a group of tests.
var outcomeLine = regexp.MustCompile(`(?m)^ +OCI Conformance Test/(.+): (Pass|FAIL|Error|Skip|Disabled|Unknown)$`)

// writes are the tests of what a read-only registry has not.
var writes = regexp.MustCompile(`^(sha256 blobs|sha512 blobs|read-only/push|read-only/delete|invalid-digest-format/manifest-put|invalid-digest-format/delete)`)

// brokenReport is where the suite fails, after it has printed all, when it is told to write
// nothing: of blobs to push it has a status, and no name.
const brokenReport = "main.(*runner).ReportResultsYAML"

// conforms runs the suite. It is not asked for the digest header of manifests, which it would look
// for in a response that it has not kept where it does not know their bytes; our tests want it.
func (r readOnly) conforms(t *testing.T, addr, repo string) {
	t.Helper()
	results := t.TempDir()
	list := func(digests []digest.Digest) string { return strings.Trim(fmt.Sprint(digests), "[]") }
	cmd := exec.CommandContext(t.Context(), filepath.Join(labtest.Cache(t), "bin", tools.Conformance[0]))
	cmd.Dir = results // it looks for configuration
	cmd.Env = append(os.Environ(),
		"OCI_REGISTRY="+addr, "OCI_TLS=disabled", "OCI_REPO1="+repo, "OCI_RESULTS_DIR="+results,
		"OCI_RO_DATA_TAGS=latest", "OCI_RO_DATA_MANIFESTS="+list(r.manifests), "OCI_RO_DATA_BLOBS="+list(r.blobs), "OCI_RO_DATA_REFERRERS="+r.manifests[0].String(),
		"OCI_API_BLOBS_DIGEST_HEADER=true",
		"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false",
	)
	out, err := cmd.CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte(brokenReport)) {
		t.Errorf("%v\n%s", err, out)
	}
	count := map[string]int{}
	found := outcomeLine.FindAllStringSubmatch(string(out), -1)
	for i, m := range found {
		if i+1 < len(found) && strings.HasPrefix(found[i+1][1], m[1]+"/") {
			continue // a group
		}
		count[m[2]]++
		if m[2] != "Pass" && (m[2] != "Disabled" || !writes.MatchString(m[1])) {
			t.Errorf("%s: %s", m[1], m[2])
		}
	}
	t.Logf("%s: %v", repo, count)
	if want := r.tests(); count["Pass"] != want || !bytes.Contains(out, []byte("\nOCI Conformance Result: Pass\n")) {
		t.Errorf("%d tests passed, want %d\n%s", count["Pass"], want, out)
	}
}
