//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// maxOrders bounds how many wait for a recording: each that runs has an owner of fanotify's
// groups, of which a user has 128.
const maxOrders = 16

// A RecordOrder asks for the profile of the next container that starts, also of an image
// that has one.
type RecordOrder struct {
	// Image names the image as Profile does; empty: any.
	Image string
	// Window ends the recording so long after the first file was opened; 0: it does not.
	Window time.Duration
	// Enough, when it is closed, ends it.
	Enough <-chan struct{}
	// Waiting is called when a container that starts from now on would be recorded.
	Waiting func()
	// Begun is told which container is recorded, by the key of its snapshot. It may be told
	// again: a container that goes before it opens anything was not the one.
	Begun func(key string, chain digest.Digest)
}

// A RecordEnd says what has ended a recording.
type RecordEnd string

// The ends.
const (
	EndEnough RecordEnd = "enough" // RecordOrder.Enough
	EndWindow RecordEnd = "window" // RecordOrder.Window
	EndGone   RecordEnd = "gone"   // the container's snapshot was removed
)

// A Recorded is what one container has opened.
type Recorded struct {
	Chain   digest.Digest // of the image
	End     RecordEnd
	Files   int
	Profile []byte // as PutProfile takes it
}

// An order waits for containers, or for what the one that is recorded opens.
type order struct {
	RecordOrder
	found  chan *recording // has room for one
	busy   bool            // there is one; with recorder.mu
	cancel context.CancelCauseFunc
}

// RecordProfile records what the next container opens, and returns when it is at its end. It keeps
// nothing: that is for the caller to say, who knows whether the container became ready.
func (s *Snapshotter) RecordProfile(ctx context.Context, o RecordOrder) (*Recorded, error) {
	r := s.recorder
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ord := &order{RecordOrder: o, found: make(chan *recording, 1), cancel: cancel}
	if err := r.place(ord); err != nil {
		return nil, fmt.Errorf("record a profile: %w", err)
	}
	defer r.withdraw(ord)
	o.Waiting()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("record a profile: %w", context.Cause(ctx))
		case <-o.Enough:
			return nil, fmt.Errorf("record a profile: no container was started: %w", errdefs.ErrFailedPrecondition)
		case rec := <-ord.found:
			done, err := r.follow(ctx, ord, rec)
			if done != nil || err != nil {
				return done, err
			}
		}
	}
}

// place makes an order wait for containers. Close waits until it is withdrawn.
func (r *recorder) place(o *order) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	if len(r.orders) >= maxOrders {
		return fmt.Errorf("%d others wait for containers already: end some: %w", maxOrders, errdefs.ErrResourceExhausted)
	}
	r.orders[o] = struct{}{}
	r.wg.Add(1)
	return nil
}

func (r *recorder) withdraw(o *order) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.orders, o)
	select {
	case rec := <-o.found:
		r.drop(rec)
	default:
	}
	r.wg.Done()
}

// take gives a container to the orders that wait for it, and says whether there are any. It
// is called with r.mu.
func (r *recorder) take(c candidate) (taken bool) {
	for o := range r.orders {
		if o.busy || !c.image.named(o.Image) {
			continue
		}
		o.busy, taken = true, true
		o.found <- r.newRecording(c, o.Window)
	}
	return taken
}

// named says whether a name, as RecordOrder has it, is this image's.
func (im *imageFiles) named(name string) bool {
	name = strings.TrimPrefix(name, digest.SHA256.String()+":")
	if strings.HasPrefix(im.chain.Encoded(), name) {
		return true
	}
	top, err := mediatype.LayerDigest(im.roots[0])
	return err == nil && strings.HasPrefix(top.Encoded(), name)
}

// follow records one container. It returns nothing if that has gone before it opened
// anything: then the order waits for the next.
func (r *recorder) follow(ctx context.Context, o *order, rec *recording) (*Recorded, error) {
	ended := make(chan struct{})
	enough := false
	var waiting sync.WaitGroup
	waiting.Go(func() {
		o.Begun(rec.key, rec.image.chain)
		select {
		case <-o.Enough:
			enough = true
			rec.cancel()
		case <-ended:
		}
	})
	r.record(ctx, rec)
	close(ended)
	waiting.Wait()
	files, full := rec.stop()
	r.mu.Lock()
	r.drop(rec)
	o.busy = len(files) > 0
	r.mu.Unlock()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("record a profile: %w", context.Cause(ctx))
	}
	done := &Recorded{Chain: rec.image.chain, End: EndGone, Files: len(files)}
	switch {
	case full:
		done.End = EndWindow
	case enough:
		done.End = EndEnough
	}
	if len(files) == 0 {
		if done.End == EndGone {
			return nil, nil
		}
		return nil, fmt.Errorf("record a profile: the container has opened no file of the image so far: %w", errdefs.ErrFailedPrecondition)
	}
	var err error
	done.Profile, err = layer.EncodeProfile(files)
	return done, err
}
