package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// cannotRun are the specs of critest that cannot run here, with what stands in the way.
var cannotRun = []struct{ spec, why string }{
	{"public image with digest", "the digest is that of an image on the Internet"},
	{"runtime should support MaskedPaths", "it masks /bin/ls, and wants the words that the shell of an image on the Internet has for that: ours finds another ls"},
}

// substitutes are images that stand in for those that critest pulls, by the repository and
// tag that it asks for: each is one of ours with another configuration.
func substitutes() map[string]substitute {
	const nginx = `exec nginx -g "daemon off;"`
	test := "k8s-staging-cri-tools/"
	all := map[string]substitute{
		"e2e-test-images/busybox:1.29-2": {"web", shell("sh")},
		"e2e-test-images/nginx:1.14-2":   {"web", ocispec.ImageConfig{Cmd: []string{"nginx", "-g", "daemon off;"}}},
		"e2e-test-images/httpd:2.4.39-4": {"web", shell("echo httpd; " + nginx)},
		"e2e-test-images/nonewprivs:1.3": {"web", shell(`echo "Effective uid: $(id-setuid -u)"`)},
		"pause:3.9":                      {"busybox", shell("sleep infinity")},
		test + "hostnet-nginx-" + runtime.GOARCH + ":latest": {"web",
			shell("sed -i s/80.default_server/12003/ /etc/nginx/sites-enabled/default; " + nginx)},
		test + "test-image-predefined-group:latest": {"web", ocispec.ImageConfig{User: "1000", Cmd: []string{"sh"}}},
	}
	for name, user := range map[string]string{"uid": "1002", "username": "www-data", "uid-group": "1003:users", "username-group": "www-data:100"} {
		all[test+"test-image-user-"+name+":latest"] = substitute{"busybox", ocispec.ImageConfig{User: user, Cmd: []string{"sh"}}}
	}
	for _, name := range []string{"test-image-latest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-tags:1",
		"test-image-1:latest", "test-image-2:latest", "test-image-3:latest"} {
		all[test+name] = substitute{"busybox", ocispec.ImageConfig{Labels: map[string]string{"name": name}, Cmd: []string{"sh"}}}
	}
	for _, tag := range []string{"2", "3"} {
		all[test+"test-image-tags:"+tag] = all[test+"test-image-tags:1"]
	}
	return all
}

// substitute is one of our images with a configuration.
type substitute struct {
	image  string
	config ocispec.ImageConfig
}

func shell(script string) ocispec.ImageConfig {
	return ocispec.ImageConfig{Cmd: []string{"sh", "-c", script}}
}

// TestCritest runs the tests that Kubernetes has for container runtimes, with ipcs as the
// snapshotter of containerd's CRI plugin, and ipcs images in place of those they pull. What
// is hard-coded in them leads to the lab's registry.
func TestCritest(t *testing.T) {
	labtest.Nightly(t)
	labtest.Tools(t, tools.CRI...)
	if err := tools.Packages(t.Context(), map[string]string{
		"/usr/lib/cni/bridge": "containernetworking-plugins", "iptables": "iptables", // for port mappings
	}); err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, "critest", options{cri: true, pods: true})
	w.traversable()
	w.pushSandbox()
	w.pushSubstitutes()
	ref := w.registry.Addr + "/e2e-test-images/busybox:1.29-2"
	w.kubelet().pull(t.Context(), ref)
	w.in(kubernetes, ref).lazy()
	report := filepath.Join(t.TempDir(), "report.json")
	args := []string{
		"-runtime-endpoint", "unix://" + w.containerd.Address, "-ginkgo.json-report", report, "-ginkgo.no-color", "-ginkgo.succinct",
		"-nri-socket", w.containerd.NRI, "-ginkgo.timeout", "1h", "-test.timeout", "1h",
	}
	for _, c := range cannotRun {
		args = append(args, "-ginkgo.skip", regexp.QuoteMeta(c.spec))
	}
	if focus := os.Getenv("CRITEST_FOCUS"); focus != "" {
		args = append(args, "-ginkgo.focus", focus)
	}
	out, err := w.consume.Command(t.Context(), "critest", args...).CombinedOutput()
	w.judge(readReport(t, report))
	if err != nil && !t.Failed() {
		t.Errorf("critest: %v", err)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// pushSubstitutes converts the substitutes and puts them where critest looks for them.
func (w *world) pushSubstitutes() {
	w.t.Helper()
	ctx := w.t.Context()
	layout := filepath.Join(w.t.TempDir(), "image")
	for name, s := range substitutes() {
		from, err := images.Open(labtest.Image(w.t, s.image))
		w.must(err)
		s.config.Env = []string{"PATH=/busybox:/usr/sbin:/usr/bin:/sbin:/bin"}
		_, err = images.Write(ctx, layout, images.Image{From: from, Config: s.config})
		w.must(err)
		source := w.registry.Addr + "/ordinary/" + name
		_, err = images.Copy(ctx, "oci:"+layout, source, w.store.HTTPClient())
		w.must(err)
		_, err = lab.Output(w.publisher.Command(ctx, "convert", "--mediatype", "unixfs", "--plain-http",
			"--ipfs-api", w.source.API, source, w.registry.Addr+"/"+name))
		w.must(err)
	}
}

// spec is what critest's report says of one test.
type spec struct {
	ContainerHierarchyTexts    []string
	LeafNodeText, LeafNodeType string
	State                      string
	RunTime                    time.Duration
	Failure                    struct{ Message string }
}

func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

func readReport(t *testing.T, path string) (specs []spec) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var suites []struct{ SpecReports []spec }
	if err := json.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites {
		specs = append(specs, suite.SpecReports...)
	}
	return specs
}

// judge counts what passed, and says of each other test why it did not.
func (w *world) judge(specs []spec) {
	w.t.Helper()
	count, used := map[string]int{}, map[string]bool{}
	for _, s := range specs {
		if s.LeafNodeType != "It" && s.State == "passed" || strings.Contains(s.name(), "benchmark") {
			continue
		}
		count[s.State]++
		switch s.State {
		case "passed":
		case "skipped", "pending":
			why := s.Failure.Message
			for _, c := range cannotRun {
				if strings.Contains(s.name(), c.spec) {
					why, used[c.spec] = c.why, true
				}
			}
			w.t.Logf("skipped: %s: %s", s.name(), why)
		default:
			w.t.Errorf("%s: %s: %s", s.State, s.name(), s.Failure.Message)
		}
	}
	w.t.Logf("critest: %v", count)
}
