package e2e

import (
	"context"
	"strings"

	"github.com/hinshun/ipcs/internal/lab"
)

// run runs a command in a new container of an image and returns its output.
func (w *world) run(id, ref, snapshotter string, command ...string) string {
	w.t.Helper()
	args := append([]string{"run", "--rm", "--snapshotter", snapshotter, ref, w.id(id)}, command...)
	out, err := lab.Output(w.containerd.Ctr(w.t.Context(), args...))
	w.must(err)
	return out
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
