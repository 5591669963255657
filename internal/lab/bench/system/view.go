package system

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// abortAfter is how long readers have to end by themselves when their context has ended.
const abortAfter = 5 * time.Second

// A View is an image's root file system, mounted on a host.
//
// A program that waits for a file to be served cannot be interrupted, but the mount can:
// it ends with the process that serves it. A goroutine, which Close waits for, kills the
// host's helpers when the context that the view was made with has ended and the view is
// not closed soon after that. Whoever reads gets an error then.
type View struct {
	*lab.View

	closing func()
}

// View mounts an image that was pulled, read-only.
func (h *Host) View(ctx context.Context, ref string) (*View, error) {
	return h.mount(ctx, ref, h.Containerd.View)
}

// Writable mounts it with a directory for changes, as every container has.
func (h *Host) Writable(ctx context.Context, ref string) (*View, error) {
	return h.mount(ctx, ref, h.Containerd.Writable)
}

func (h *Host) mount(ctx context.Context, ref string, mount func(ctx context.Context, ref, snapshotter string) (*lab.View, error)) (*View, error) {
	closing := h.abortAfter(ctx)
	v, err := mount(ctx, ref, h.Snapshotter)
	if err != nil {
		closing()
		return nil, errors.Join(err, context.Cause(ctx))
	}
	return &View{View: v, closing: closing}, nil
}

// abortAfter kills the host's helpers some time after ctx has ended, unless the function
// that it returns is called, which must be.
func (h *Host) abortAfter(ctx context.Context) (closing func()) {
	closed := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-closed:
			return
		case <-ctx.Done():
		}
		timer := time.NewTimer(abortAfter)
		defer timer.Stop()
		select {
		case <-closed:
		case <-timer.C:
			for _, p := range h.Helpers {
				p.Kill()
			}
			if h.Daemon != nil {
				_ = h.Daemon.Abort() // readers say what became of them
			}
		}
	})
	return func() {
		close(closed)
		watch.Wait()
	}
}

// Close unmounts and removes the view. It goes on when ctx has ended.
func (v *View) Close(ctx context.Context) error {
	v.closing()
	return v.View.Close(ctx)
}
