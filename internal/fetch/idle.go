package fetch

import (
	"context"
	"sync"
	"time"
)

// idleContext ends, as if its deadline had passed, when nothing was done for a while: a
// batch over a slow link is not given up as long as its leaves come in.
type idleContext struct {
	context.Context // for the values

	limit time.Duration
	timer *time.Timer
	done  chan struct{}
	mu    sync.Mutex
	err   error
}

// withIdle returns an idleContext with the values of parent; its end is not inherited.
func withIdle(parent context.Context, limit time.Duration) *idleContext {
	c := &idleContext{Context: context.WithoutCancel(parent), limit: limit, done: make(chan struct{})}
	c.timer = time.AfterFunc(limit, func() { c.end(context.DeadlineExceeded) })
	return c
}

// extend begins the while anew.
func (c *idleContext) extend() { c.timer.Reset(c.limit) }

// cancel ends the context, and must be called to give back what it holds.
func (c *idleContext) cancel() {
	c.timer.Stop()
	c.end(context.Canceled)
}

func (c *idleContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

// Done implements context.Context.
func (c *idleContext) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *idleContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
