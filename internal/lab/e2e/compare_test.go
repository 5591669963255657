package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/compare"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// program runs one of ours, and returns what it prints.
func program(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(labtest.Project(t), "bin", name), args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(labtest.Cache(t), "run"))
	out, err := lab.Output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compared runs compare.
func compared(t *testing.T, args ...string) *compare.Report {
	t.Helper()
	var r compare.Report
	if err := json.Unmarshal([]byte(program(t, "compare", append([]string{"--json"}, args...)...)), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// amounts are those of the sets of a level, as the oracle writes them.
func amounts(l compare.Level) map[string]compare.Amount {
	out := map[string]compare.Amount{}
	for _, s := range l.Sets {
		out[strings.Trim(fmt.Sprint(s.Images), "[]")] = s.Amount
	}
	for i, im := range l.Images {
		if im.Unique.Count > 0 {
			out[strconv.Itoa(i)] = im.Unique
		}
	}
	return out
}

// TestCompare computes what images share in another way, from their tars: every figure is the same. IPCS_CORPUS adds images.
func TestCompare(t *testing.T) {
	t.Parallel()
	labtest.Build(t)
	if err := tools.Packages(t.Context(), map[string]string{"python3": "python3", "zstd": "zstd"}); err != nil {
		t.Fatal(err)
	}
	layouts := external(t)
	for _, name := range []string{"nasty", "busybox", "base", "debian", "small-base", "small"} {
		layouts = append(layouts, labtest.Image(t, name))
	}
	var refs []string
	for _, l := range layouts {
		refs = append(refs, "oci:"+l)
	}
	r := compared(t, refs...)
	script := filepath.Join(labtest.Project(t), "internal/compare/testdata/oracle.py")
	out, err := lab.Output(exec.CommandContext(t.Context(), "python3", append([]string{script}, layouts...)...))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]compare.Amount
	if err := json.Unmarshal([]byte(out), &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(r.Levels) {
		t.Errorf("%d levels, the oracle has %d", len(r.Levels), len(want))
	}
	for _, l := range r.Levels {
		if got := amounts(l); !reflect.DeepEqual(got, want[l.Name]) || len(got) == 0 {
			t.Errorf("%s:\n%v\nthe oracle says\n%v", l.Name, got, want[l.Name])
		}
	}
	page(t, refs)
}

// page opens the page of a comparison in a browser, from the disk.
func page(t *testing.T, refs []string) {
	t.Helper()
	if err := tools.Packages(t.Context(), map[string]string{"chromium": "chromium fonts-dejavu-core"}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.html")
	program(t, "compare", append([]string{"--html", file}, refs...)...)
	for _, theme := range []string{"light", "dark"} {
		shot := filepath.Join(labtest.Cache(t), "run", "compare-"+theme+".png")
		args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1300,3200", "--virtual-time-budget=5000", "--user-data-dir=" + t.TempDir(), "--enable-logging=stderr", "--log-level=1"}
		if theme == "dark" {
			args = append(args, "--blink-settings=preferredColorScheme=0")
		}
		cmd := exec.CommandContext(t.Context(), "chromium", append(args, "--dump-dom", "--screenshot="+shot, "file://"+file)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		start := time.Now()
		dom, err := cmd.Output()
		if err != nil {
			t.Fatalf("chromium: %v\n%s", err, stderr.String())
		}
		t.Logf("chromium took %v; %s", time.Since(start).Round(time.Millisecond), shot)
		if strings.Contains(stderr.String(), "Uncaught") || strings.Contains(stderr.String(), "Refused to") {
			t.Errorf("the page has errors:\n%s", stderr.String())
		}
		if len(dom) > 0 {
			checkPage(t, string(dom), len(refs), theme)
		}
		if info, err := os.Stat(shot); err != nil || info.Size() < 50_000 {
			t.Errorf("a screenshot: %v", err)
		}
	}
}

// checkPage looks for what the page's program has made.
func checkPage(t *testing.T, dom string, images int, theme string) {
	t.Helper()
	for what, want := range map[string]struct{ pattern, id string }{
		"rows of images":  {"<tr>", "images"},
		"rows of heat":    {"<tr>", "heat"},
		"sets":            {"<rect", "upset"},
		"bars":            {"class=\"(before|after)\"", "bars"},
		"largest, shared": {"<tr>", "shared"},
	} {
		_, part, found := strings.Cut(dom, `id="`+want.id+`"`)
		part, _, _ = strings.Cut(part, "<h2")
		n := len(regexp.MustCompile(want.pattern).FindAllString(part, -1))
		if least := 2; !found || n < least || strings.HasPrefix(what, "rows") && n != images+1 {
			t.Errorf("%s: there are %d for %d images", what, n, images)
		}
	}
	if !strings.Contains(dom, `data-theme="`+theme+`"`) {
		t.Errorf("the page is not %s", theme)
	}
}

// everySource has the same figures of the same images out of containerd, and by CID.
func (w *world) everySource(ref, target string, want *compare.Report) {
	w.t.Helper()
	w.ctr("content", "fetch", "--plain-http", ref)
	w.ctr("content", "fetch", "--plain-http", target)
	cmd := w.containerd.Command(w.t.Context(), "compare", "--json", "--no-cache", "--ipfs-api", w.daemon.API, "--containerd-address", w.containerd.Address, "containerd:"+ref, "containerd:"+target)
	out, err := lab.Output(cmd)
	w.must(err)
	published := w.toIPFS(w.publisher, w.source.API, labtest.Image(w.t, "small"))
	byCid, err := lab.Output(w.publisher.Command(w.t.Context(), "compare", "--json", "--no-cache", "--plain-http", "--ipfs-api", w.source.API, ref, "ipfs:"+published.Cid))
	w.must(err)
	for source, text := range map[string]string{"containerd": out, "ipfs": byCid} {
		var got compare.Report
		w.must(json.Unmarshal([]byte(text), &got))
		if !reflect.DeepEqual(got.Levels, want.Levels) {
			w.t.Errorf("from %s:\n%+v\nwant\n%+v", source, got.Levels, want.Levels)
		}
	}
}

// TestCompareConverted compares an image with what it was converted to, of which the node that is asked has nothing: it gets indexes, and no file.
func TestCompareConverted(t *testing.T) {
	w := newWorldWith(t, "compare", options{loopback: true})
	ref := w.push(labtest.Image(t, "small"))
	target := w.convert(ref)
	r := compared(t, "--plain-http", "--ipfs-api", w.daemon.API, ref, target)
	status, err := w.daemon.Status(t.Context())
	w.must(err)
	content := r.Images[0].Files.Bytes
	if status.Fetch.Bytes > 0 || status.Store.Bytes > content/10 {
		t.Errorf("%d bytes of files were fetched, and %d are kept; the image has %d", status.Fetch.Bytes, status.Store.Bytes, content)
	}
	for _, l := range r.Levels {
		whole := l.Images[0].Unique.Count + l.Images[0].Shared.Count
		switch l.Name {
		case compare.LevelPart, compare.LevelChunk:
			if !l.Partial {
				t.Errorf("%s is known though no data was read", l.Name)
			}
		default:
			if l.Partial || whole == 0 || len(l.Sets) != 1 || l.Sets[0].Count != whole || l.Before.Bytes != 2*l.After.Bytes {
				t.Errorf("%s: the two are not the same: %+v", l.Name, l)
			}
		}
	}
	if !r.Images[1].IPCS || r.Images[0].IPCS || r.Images[1].Files != r.Images[0].Files {
		t.Errorf("%+v", r.Images)
	}
	w.everySource(ref, target, r)
	if p := r.Pairs[0]; p.Raw != 0 || p.Registry != 0 {
		t.Errorf("to pull what is there: %+v", p)
	}
}
