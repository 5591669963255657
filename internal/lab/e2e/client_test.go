package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestGoClient pulls and runs an ipcs image with containerd's own client.
func TestGoClient(t *testing.T) {
	w := newWorldWith(t, "goclient", options{loopback: true})
	ref := w.convert(w.push(labtest.Image(t, "small")))
	output, status := w.runAsInReadme(ref)
	w.must(status.Error())
	if status.ExitCode() != 0 || !strings.Contains(output, "ID=debian\n") {
		t.Errorf("exit code %d, output %q", status.ExitCode(), output)
	}
	w.in(lab.Namespace, ref).lazy()
}

// runAsInReadme is README's code with what is real here in the place of its examples.
func (w *world) runAsInReadme(ref string) (string, containerd.ExitStatus) {
	w.t.Helper()
	ctx, address, id := w.t.Context(), w.containerd.Address, w.id("c1")
	var output, errors bytes.Buffer
	stdio := cio.WithStreams(strings.NewReader(""), &output, &errors)

	client, err := containerd.New(address, containerd.WithDefaultNamespace("default"))
	w.must(err)
	defer func() { w.must(client.Close()) }()
	image, err := client.Pull(ctx, ref,
		containerd.WithPullUnpack, containerd.WithPullSnapshotter("ipcs"))
	w.must(err)
	container, err := client.NewContainer(ctx, id,
		containerd.WithSnapshotter("ipcs"), containerd.WithNewSnapshot(id, image),
		containerd.WithNewSpec(oci.WithImageConfig(image), oci.WithProcessArgs("cat", "/etc/os-release")))
	w.must(err)
	defer func() {
		w.must(container.Delete(context.WithoutCancel(ctx), containerd.WithSnapshotCleanup))
	}()
	task, err := container.NewTask(ctx, cio.NewCreator(stdio))
	w.must(err)
	defer func() {
		_, err := task.Delete(context.WithoutCancel(ctx), containerd.WithProcessKill)
		w.must(err)
	}()
	exited, err := task.Wait(ctx)
	w.must(err)
	err = task.Start(ctx)
	w.must(err)
	status := <-exited

	task.IO().Wait() // for the output's end
	if errors.Len() > 0 {
		w.t.Errorf("standard error: %s", &errors)
	}
	return output.String(), status
}

// TestReadmeCode finds that README shows the code that TestGoClient runs.
func TestReadmeCode(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(labtest.Project(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.ReadFile("client_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	code, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("README.md has no code for the Go client")
	}
	ours := strings.NewReplacer(
		`"registry.example/debian:ipcs"`, "ref", `"/run/containerd/containerd.sock"`, "address",
		`"c1"`, "id", "cio.WithStdio", "stdio",
	).Replace(code)
	// A line that is not indented begins a statement.
	for _, statement := range strings.Split(strings.ReplaceAll(ours, "\n\t", " "), "\n") {
		if !strings.Contains(strings.Join(strings.Fields(string(run)), " "), strings.Join(strings.Fields(statement), " ")) {
			t.Errorf("TestGoClient does not run: %s", statement)
		}
	}
}
