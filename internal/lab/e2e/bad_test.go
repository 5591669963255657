package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/mediatype"
)

// endsWithin is far more than a daemon that cannot start needs to say so.
const endsWithin = time.Minute

// TestDaemonRefusesToStart starts daemons that cannot run, each for its own reason,
// and finds that they say which, and that the one that runs goes on.
func TestDaemonRefusesToStart(t *testing.T) {
	w := newWorld(t, "refuse", 0)
	dir := t.TempDir()
	program := filepath.Join(dir, "ipcs-snapshotter") // where any user may run it
	text, err := os.ReadFile(filepath.Join(labtest.Project(t), "bin", "ipcs-snapshotter"))
	w.must(err)
	w.must(os.WriteFile(program, text, 0o755))
	own := []string{"--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state")}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"root in use": {
			[]string{program, "--root", w.daemon.Root(), "--state", filepath.Join(dir, "state")},
			[]string{w.daemon.Root()},
		},
		"state in use": {
			[]string{program, "--root", filepath.Join(dir, "root"), "--state", filepath.Dir(w.daemon.API)},
			[]string{"another ipcs-snapshotter", "--state"},
		},
		"not root": {
			append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program}, own...),
			[]string{"root"},
		},
		"no /dev/fuse": {
			append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs tmpfs /dev && exec "$@"`, "sh", program}, own...),
			[]string{"/dev/fuse"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), endsWithin)
			defer cancel()
			out, err := exec.CommandContext(ctx, c.args[0], c.args[1:]...).CombinedOutput()
			if err == nil || ctx.Err() != nil {
				t.Fatalf("it ran: %v\n%s", err, out)
			}
			for _, want := range c.says {
				if !strings.Contains(string(out), want) {
					t.Errorf("the error does not say %q:\n%s", want, out)
				}
			}
			if _, err := w.daemon.Status(t.Context()); err != nil {
				t.Errorf("the daemon that ran: %v", err)
			}
		})
	}
}

// TestContradictions pulls images whose annotations contradict their diffIDs: each
// pull fails and leaves no image. It is the last layer that lies: containerd asks nobody
// about a chain that it has.
func TestContradictions(t *testing.T) {
	layout := layered(t)
	w := newWorld(t, "contra", 2*time.Second)
	converted := w.convert(w.push(layout))
	client := w.store.HTTPClient()
	for name, forge := range map[string]func(r *images.Remote){
		"another layer's root": func(r *images.Remote) {
			annotate(r, 2, mediatype.AnnotationRoot, r.Manifest.Layers[0].Annotations[mediatype.AnnotationRoot])
		},
		"no CID": func(r *images.Remote) { annotate(r, 2, mediatype.AnnotationRoot, "not a CID") },
		"another diffID": func(r *images.Remote) {
			r.Config.RootFS.DiffIDs[2] = "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.with(t)
			r, err := images.Get(t.Context(), converted, client)
			w.must(err)
			forge(r)
			ref := strings.TrimSuffix(converted, "ipcs") + strings.ReplaceAll(strings.ToLower(name), " ", "-")
			ref = strings.ReplaceAll(ref, "'", "")
			w.must(r.Put(t.Context(), ref, client))
			out, err := w.containerd.Ctr(t.Context(), "image", "pull", "--plain-http", "--snapshotter", "ipcs", ref).CombinedOutput()
			if err == nil {
				t.Fatalf("the pull succeeded:\n%s", out)
			}
			t.Logf("%s", out)
			w.noImages()
		})
	}
}

// annotate changes one annotation of one layer.
func annotate(r *images.Remote, layer int, name, value string) {
	changed := map[string]string{}
	for k, v := range r.Manifest.Layers[layer].Annotations {
		changed[k] = v
	}
	changed[name] = value
	r.Manifest.Layers[layer].Annotations = changed
}
