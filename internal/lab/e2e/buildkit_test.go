package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// most is more than the files that are read, and far fewer than the image has.
const most = 1000

// TestBuildKit builds images from ipcs images with stock buildkitd on the ipcs snapshotter:
// from one that it pulls itself, and from one that is in containerd already. What was built
// runs here and elsewhere, where nobody fetches what is not read.
func TestBuildKit(t *testing.T) {
	labtest.Tools(t, tools.BuildKit...)
	w := newWorldWith(t, "buildkit", options{loopback: true, unpack: true})
	debian := w.convert(w.push(labtest.Image(t, "small")))
	busybox := w.convert(w.push(labtest.Image(t, "busybox")))
	b, err := w.containerd.StartBuildKit(t.Context(), "ipcs", w.registry.Addr)
	w.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", b.Tail())
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	built := w.build(b, debian, "python3 -c 'import json; print(json.dumps(1))' >/made && rm /etc/issue && chmod 600 /etc/hostname")
	t.Logf("the build fetched %d files", w.fetched())
	w.pull(busybox, "ipcs")
	small := w.build(b, busybox, "echo 1 >/made")
	w.pull(small, "ipcs")
	w.works(small, "ipcs")

	other := w.beside("other")
	for name, w := range map[string]*world{"here": w, "elsewhere": other} {
		w.pull(built, "ipcs")
		w.works(built, "ipcs")
		if n := w.fetched(); name == "elsewhere" && n > most {
			t.Errorf("%s: %d files were fetched", name, n)
		}
	}
}

// build builds an image from another with a command that writes "1" to /made, and pushes it.
func (w *world) build(b *lab.BuildKit, base, command string) (target string) {
	w.t.Helper()
	dir := w.t.TempDir()
	w.must(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\nRUN "+command+"\nCOPY copied /copied\n"), 0o600))
	w.must(os.WriteFile(filepath.Join(dir, "copied"), []byte("copied\n"), 0o644))
	target = w.registry.Addr + "/built/" + filepath.Base(strings.TrimSuffix(base, ":ipcs")) + ":latest"
	_, err := lab.Output(b.Command(w.t.Context(), "build", "--frontend", "dockerfile.v0", "--no-cache",
		"--local", "context="+dir, "--local", "dockerfile="+dir,
		"--output", "type=image,name="+target+",push=true,registry.insecure=true"))
	w.must(err)
	return target
}

// works finds what a build has made in a container on its image.
func (w *world) works(ref, snapshotter string) {
	w.t.Helper()
	if out := w.run("works", ref, snapshotter, "cat", "/made", "/copied"); out != "1\ncopied\n" {
		w.t.Errorf("%s: output %q", ref, out)
	}
}
