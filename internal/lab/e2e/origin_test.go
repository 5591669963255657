package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestFromRegistry has the publisher's node end once an image is converted, and the registry remove what nothing leads to: machines that know no
// peer have all of it from the registry, also a copy of the image in another repository, and while the registry is away
// reads wait for it.
func TestFromRegistry(t *testing.T) {
	w := newWorld(t, "origin", time.Minute)
	ref := w.push(labtest.Image(t, "small"))
	target := w.convertWith(ref, "--seeds", "--peer-hint", "none")
	copied := w.registry.Addr + "/copies/debian:latest"
	_, err := images.CopyAll(t.Context(), target, copied, w.store.HTTPClient())
	w.must(err)
	w.pull(ref, "overlayfs")
	want, touched := w.tree(ref, "overlayfs"), w.touched(ref)
	w.must(w.source.Stop())
	w.must(w.registry.Stop())
	_, err = w.registry.CollectGarbage(t.Context())
	w.must(err)
	w.registry, err = w.store.StartRegistry(t.Context())
	w.must(err)

	alone := w.on(labtest.Machine(t, w.lab, "alone"), lab.DaemonOptions{Registries: []string{w.registry.Addr}, Timeout: time.Minute}, lab.ContainerdOptions{})
	alone.pull(target, "ipcs")
	start := time.Now()
	if out := alone.run("first", target, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
		t.Errorf("output %q", out)
	}
	t.Logf("run after %v", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	alone.same(want, alone.tree(target, "ipcs"), touched)
	t.Logf("all of it read after %v", time.Since(start).Round(time.Millisecond))
	status, err := alone.daemon.Status(t.Context())
	w.must(err)
	if len(status.Chains) == 0 || len(status.Chains[0].Peers) != 1 || !strings.HasPrefix(status.Chains[0].Peers[0].ID, w.registry.Addr) {
		t.Errorf("it came from %+v", status.Chains)
	}

	other := w.on(labtest.Machine(t, w.lab, "other"), lab.DaemonOptions{Registries: []string{w.registry.Addr}, Timeout: time.Minute}, lab.ContainerdOptions{})
	other.pull(copied, "ipcs")
	w.must(w.registry.Stop())
	done := make(chan string, 1)
	go func() { done <- other.run("away", copied, "ipcs", "python3", "-c", "print(6*7)") }()
	select {
	case out := <-done:
		t.Fatalf("without the registry: %q", out)
	case <-time.After(5 * time.Second):
	}
	w.registry, err = w.store.StartRegistry(t.Context())
	w.must(err)
	if out := <-done; out != "42\n" {
		t.Errorf("with the registry back: %q", out)
	}
	start = time.Now()
	other.same(want, other.tree(copied, "ipcs"), touched)
	status, err = other.daemon.Status(t.Context())
	w.must(err)
	if len(status.Chains) == 0 || len(status.Chains[0].Peers) != 1 || status.Chains[0].Peers[0].ID != w.registry.Addr+"/copies/debian" {
		t.Errorf("the copy came from %+v", status.Chains)
	}
	t.Logf("all of the copy read after %v", time.Since(start).Round(time.Millisecond))
}

// TestOneTag has hosts with and without ipcs run one tag: each what it can, and neither is told which.
func TestOneTag(t *testing.T) {
	w := newWorld(t, "onetag", time.Minute)
	w.pushSandbox()
	ref := w.push(labtest.Image(t, "small"))
	target := w.convertWith(ref, "--seeds", "--with-original", "--peer-hint", "none")
	w.must(w.source.Stop())
	const answer = "print(6*7)"

	stock := *w
	stock.consume = labtest.Machine(t, w.lab, "stock")
	var err error
	stock.containerd, err = stock.consume.StartContainerd(t.Context(), lab.ContainerdOptions{})
	w.must(err)
	t.Cleanup(func() { w.must(stock.containerd.Stop(context.Background())) })
	stock.pull(target, "overlayfs")
	if out := stock.run("stock", target, "overlayfs", "python3", "-c", answer); out != "42\n" {
		t.Errorf("without ipcs: %q", out)
	}

	host := w.on(labtest.Machine(t, w.lab, "host"), lab.DaemonOptions{Registries: []string{w.registry.Addr}, Timeout: time.Minute}, lab.ContainerdOptions{
		CRI: &lab.CRI{Registry: w.registry.Addr, Sandbox: w.sandbox()},
	})
	byDigest := strings.TrimSuffix(target, ":ipcs") + "@" + w.ipcsManifest(target).String()
	host.pull(byDigest, "ipcs")
	if out := host.run("host", byDigest, "ipcs", "python3", "-c", answer); out != "42\n" {
		t.Errorf("with ipcs: %q", out)
	}
	host.in(lab.Namespace, byDigest).lazy()

	k := host.kubelet()
	id := k.pull(t.Context(), byDigest)
	host.in(kubernetes, byDigest).lazy()
	pod := k.runPod(t.Context())
	container := pod.start(t.Context(), id)
	pod.readUnfetched(t.Context(), container)
	pod.stop(t.Context(), container)
	pod.remove(t.Context())
}

// ipcsManifest returns the digest of the ipcs image in the index that a tag is.
func (w *world) ipcsManifest(ref string) digest.Digest {
	w.t.Helper()
	var index ocispec.Index
	w.must(images.ReadIndex(w.t.Context(), ref, w.store.HTTPClient(), &index))
	for _, m := range index.Manifests {
		if m.Platform != nil && slices.Contains(m.Platform.OSFeatures, "ipcs") {
			return m.Digest
		}
	}
	w.t.Fatalf("%s has no ipcs image: %+v", ref, index)
	return ""
}

// TestPrivateRegistry has the registry want a password: without it nothing is read, and the message says so; with that which a kubelet
// pulls with, or which stands in a file, an image runs.
func TestPrivateRegistry(t *testing.T) {
	w := newWorld(t, "private", time.Minute)
	ctx := t.Context()
	w.pushSandbox()
	target := w.convertWith(w.push(labtest.Image(t, "small")), "--seeds", "--peer-hint", "none")
	registries := []string{w.registry.Addr}
	host := w.on(labtest.Machine(t, w.lab, "host"), lab.DaemonOptions{Registries: registries, Timeout: 5 * time.Second}, lab.ContainerdOptions{
		CRI: &lab.CRI{Registry: w.registry.Addr, Sandbox: w.sandbox()},
	})
	k := host.kubelet()
	k.pull(ctx, w.sandbox())
	w.must(w.source.Stop())
	w.must(w.registry.Stop())
	const user, password = "user", "not to be seen"
	var err error
	w.registry, err = w.store.StartPrivateRegistry(ctx, user, password)
	w.must(err)

	pull := func(on *world) error {
		_, err := lab.Output(on.containerd.Ctr(ctx, "image", "pull", "--plain-http", "--user", user+":"+password, "--snapshotter", "ipcs", target))
		return err
	}
	if err := pull(host); err == nil || !strings.Contains(err.Error(), "has credentials for it") {
		t.Errorf("a daemon without credentials: %v", err)
	}

	conn, err := grpc.NewClient("unix://"+host.daemon.CRI, grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	defer conn.Close()
	pulled, err := cri.NewImageServiceClient(conn).PullImage(ctx, &cri.PullImageRequest{
		Image: &cri.ImageSpec{Image: target}, Auth: &cri.AuthConfig{Username: user, Password: password},
	})
	w.must(err)
	pod := k.runPod(ctx)
	container := pod.start(ctx, pulled.ImageRef)
	pod.readUnfetched(ctx, container)
	pod.stop(ctx, container)
	pod.remove(ctx)

	config := filepath.Join(t.TempDir(), "config.json")
	secret := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	w.must(os.WriteFile(config, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, w.registry.Addr, secret), 0o600))
	told := w.on(labtest.Machine(t, w.lab, "told"), lab.DaemonOptions{Registries: registries, DockerConfig: config}, lab.ContainerdOptions{})
	w.must(pull(told))
	if out := told.run("told", target, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
		t.Errorf("output %q", out)
	}
	for _, on := range []*world{host, told} {
		if log := on.daemon.Tail(); strings.Contains(log, password) || strings.Contains(log, secret) {
			t.Errorf("the password stands in the log of %s", on.consume.Name)
		}
	}
}
