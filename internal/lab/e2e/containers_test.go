package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/internal/lab"
)

// run runs a command in a new container of an image and returns its output.
func (w *world) run(id, ref, snapshotter string, command ...string) string {
	w.t.Helper()
	out, err := w.output(w.t.Context(), []string{"run", "--rm", "--snapshotter", snapshotter}, append([]string{ref, w.id(id)}, command...))
	w.must(err)
	return out
}

// output has ctr run a container and returns its output, and what it said of an error. The output
// goes through a file: "ctr run" throws away what it has not read when the container ends, which
// on a busy machine is much (containerd's task.Delete closes the pipes). "ctr task exec" does not.
func (w *world) output(ctx context.Context, options, args []string) (string, error) {
	file := filepath.Join(w.t.TempDir(), "output")
	ran, err := lab.Output(w.containerd.Ctr(ctx, slices.Concat(options, []string{"--log-uri", "file://" + file}, args)...))
	out, rerr := os.ReadFile(file)
	if errors.Is(rerr, os.ErrNotExist) && err != nil {
		rerr = nil // it did not start
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return ran + string(out), errors.Join(err, rerr)
}

// id is a container's name that no other lab uses: runc keeps all of them in one
// folder.
func (w *world) id(name string) string {
	return strings.ReplaceAll(strings.ToLower(w.t.Name()), "/", "-") + "-" + name
}

// a running container.
type container struct {
	w  *world
	id string
}

// start starts a container that does nothing.
func (w *world) start(id, ref string) *container {
	w.t.Helper()
	c := &container{w, w.id(id)}
	_, err := lab.Output(w.containerd.Ctr(w.t.Context(), "run", "--detach", "--snapshotter", "ipcs", ref, c.id, "sleep", "infinity"))
	w.must(err)
	return c
}

// exec runs another command in the container and returns its output; the error holds
// what it said of one.
func (c *container) exec(ctx context.Context, name string, command ...string) (string, error) {
	args := append([]string{"task", "exec", "--exec-id", name, c.id}, command...)
	return lab.Output(c.w.containerd.Ctr(ctx, args...))
}

// execution is what became of a command.
type execution struct {
	out string
	err error
}

// begin runs a command beside the test.
func (c *container) begin(ctx context.Context, name string, command ...string) <-chan execution {
	ended := make(chan execution, 1)
	go func() {
		out, err := c.exec(ctx, name, command...)
		ended <- execution{out, err}
	}()
	return ended
}
