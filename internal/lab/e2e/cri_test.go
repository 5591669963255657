package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// kubernetes is the namespace that containerd's CRI plugin works in.
const kubernetes = "k8s.io"

// execSeconds is far more than a small file needs to be read.
const execSeconds = 30

// TestCRI does to an ipcs image, and to an ordinary one for the sandbox, what a kubelet
// does, with ipcs as the snapshotter of containerd's CRI plugin.
func TestCRI(t *testing.T) {
	w := newWorldWith(t, "cri", options{cri: true})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ref := w.convert(w.push(labtest.Image(t, "small")))
	w.pushSandbox()
	k := w.kubelet()

	image := k.pull(ctx, ref)
	w.in(kubernetes, ref).lazy()
	pod := k.runPod(ctx)
	w.in(kubernetes, w.sandbox()).on("ipcs")
	id := pod.start(ctx, image)
	before, err := w.daemon.Status(ctx)
	w.must(err)
	pod.readUnfetched(ctx, id)
	after, err := w.daemon.Status(ctx)
	w.must(err)
	if after.Fetch.Files <= before.Fetch.Files {
		t.Errorf("files fetched before and after: %d, %d; the file was not cold", before.Fetch.Files, after.Fetch.Files)
	}
	pod.stop(ctx, id)
	pod.remove(ctx)
	for _, name := range []string{ref, w.sandbox()} {
		_, err = k.image.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: name}})
		w.must(err)
	}
	w.in(kubernetes, ref).gone()
}

// sandbox is the reference of the image that holds a pod together.
func (w *world) sandbox() string { return w.registry.Addr + "/pause:latest" }

// pushSandbox puts that image, an ordinary one, into the registry.
func (w *world) pushSandbox() {
	w.t.Helper()
	_, err := images.Copy(w.t.Context(), "oci:"+w.sandboxLayout(), w.sandbox(), w.store.HTTPClient())
	w.must(err)
}

// sandboxLayout makes that image, of a program that was built with the others.
func (w *world) sandboxLayout() string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(labtest.Project(w.t), "bin", "pause"))
	w.must(err)
	layout := filepath.Join(w.t.TempDir(), "image")
	_, err = images.Write(w.t.Context(), layout, images.Image{
		Layers: []images.Layer{{Tar: images.Tar(func(t *images.Tarball) { t.File("pause", 0o755, string(text)) })}},
		Config: ocispec.ImageConfig{Entrypoint: []string{"/pause"}},
	})
	w.must(err)
	return layout
}

// kubelet speaks CRI to the consumer's containerd.
type kubelet struct {
	w       *world
	image   cri.ImageServiceClient
	runtime cri.RuntimeServiceClient
}

func (w *world) kubelet() *kubelet {
	w.t.Helper()
	conn, err := grpc.NewClient("unix://"+w.containerd.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	w.t.Cleanup(func() { _ = conn.Close() }) // nothing is lost with it
	return &kubelet{w, cri.NewImageServiceClient(conn), cri.NewRuntimeServiceClient(conn)}
}

// pull pulls an image and returns what the kubelet calls it from then on.
func (k *kubelet) pull(ctx context.Context, ref string) string {
	k.w.t.Helper()
	pulled, err := k.image.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}})
	k.w.must(err)
	return pulled.ImageRef
}

// pod is a sandbox on the machine's own network.
type pod struct {
	k      *kubelet
	id     string
	config *cri.PodSandboxConfig
}

func (k *kubelet) runPod(ctx context.Context) *pod {
	k.w.t.Helper()
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: k.w.id("pod")},
		LogDirectory: k.w.t.TempDir(),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}
	made, err := k.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	k.w.must(err)
	return &pod{k, made.PodSandboxId, config}
}

// create makes a container in the pod and returns its ID.
func (p *pod) create(ctx context.Context, image string, command ...string) string {
	p.k.w.t.Helper()
	made, err := p.k.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "c"},
			Image:    &cri.ImageSpec{Image: image},
			Command:  command,
			LogPath:  "c.log",
		},
	})
	p.k.w.must(err)
	return made.ContainerId
}

// start runs a container that waits in the pod.
func (p *pod) start(ctx context.Context, image string) (id string) {
	p.k.w.t.Helper()
	id = p.create(ctx, image, "sleep", "infinity")
	_, err := p.k.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
	p.k.w.must(err)
	return id
}

// readUnfetched reads in a container what nobody has read before.
func (p *pod) readUnfetched(ctx context.Context, id string) {
	w := p.k.w
	w.t.Helper()
	result, err := p.k.runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"cat", unfetched}, Timeout: execSeconds})
	w.must(err)
	if result.ExitCode != 0 || !strings.Contains(string(result.Stdout), "GNU GENERAL PUBLIC LICENSE") {
		w.t.Errorf("exit code %d, %.80q, %q", result.ExitCode, result.Stdout, result.Stderr)
	}
}

// stop stops a container and removes it.
func (p *pod) stop(ctx context.Context, id string) {
	p.k.w.t.Helper()
	_, err := p.k.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id})
	p.k.w.must(err)
	_, err = p.k.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
	p.k.w.must(err)
}

func (p *pod) remove(ctx context.Context) {
	p.k.w.t.Helper()
	_, err := p.k.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	p.k.w.must(err)
	_, err = p.k.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	p.k.w.must(err)
}
