//go:build linux

package opens

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// An Observer is told of overlays. Overlays are told apart by groups, since the kernel lets
// an owner have few sources of events (128 by default).
type Observer interface {
	// Group names the group of the overlay with this upper directory, and "" to leave it.
	Group(upper string) string
	// Begin is called when the first overlay of a group is mounted. opened is called by one
	// goroutine, and end when the last one is gone. ctx ends with Track.
	Begin(ctx context.Context, group string) (opened func(path string), end func())
	// Lost is called when a group cannot be watched, as long as it has overlays.
	Lost(group string, err error)
}

// Track tells the observer which files are opened on overlays while these are mounted: of
// each file once in an interval. It returns when ctx has ended.
func Track(ctx context.Context, interval time.Duration, observer Observer) error {
	marked, err := newMarked()
	if err != nil {
		return fmt.Errorf("watch which files are opened on overlays: %w", err)
	}
	defer marked.close()
	t := &tracker{observer: observer, marked: marked, groups: make(map[string]*group)}
	inner, cancel := context.WithCancel(ctx)
	t.running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				t.forget()
			case <-inner.Done():
				return
			}
		}
	})
	err = follow(inner, marked, func(found []overlay) error { return t.scan(inner, found) })
	cancel()
	_ = t.scan(inner, nil) // ends all groups
	t.running.Wait()
	if err != nil {
		return fmt.Errorf("watch which files are opened on overlays: %w", err)
	}
	return nil
}

type tracker struct {
	observer Observer
	marked   *marked
	running  sync.WaitGroup

	mu     sync.Mutex
	groups map[string]*group // nil for one that cannot be watched
}

// scan follows what is mounted. No error ends it: one concerns a group.
func (t *tracker) scan(ctx context.Context, found []overlay) error {
	places := make(map[string][]overlay)
	for _, o := range found {
		if name := t.observer.Group(o.upper); name != "" {
			places[name] = append(places[name], o)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, g := range t.groups {
		if len(places[name]) == 0 {
			delete(t.groups, name)
			if g != nil {
				g.stop()
			}
		}
	}
	for name, at := range places {
		g, ok := t.groups[name]
		if !ok {
			g = t.begin(ctx, name)
			t.groups[name] = g
		}
		if g == nil {
			continue
		}
		if err := g.mark(at, at, t.marked); err != nil {
			t.lose(name, g, err)
		}
	}
	return nil
}

// begin begins to watch a group. It returns nil if it cannot.
func (t *tracker) begin(ctx context.Context, name string) *group {
	g, err := newGroup(nil, true)
	if err != nil {
		t.observer.Lost(name, err)
		return nil
	}
	t.running.Go(func() {
		opened, end := t.observer.Begin(ctx, name)
		defer end()
		g.opened = opened
		if err := g.read(); err != nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.lose(name, g, err)
		}
	})
	return g
}

// lose gives a group up. It is called with t.mu.
func (t *tracker) lose(name string, g *group, err error) {
	g.stop()
	if t.groups[name] == g {
		t.groups[name] = nil
		t.observer.Lost(name, err)
	}
}

func (t *tracker) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, g := range t.groups {
		if g == nil {
			continue
		}
		if err := g.forget(); err != nil {
			t.lose(name, g, err)
		}
	}
}
