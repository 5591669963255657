package compare

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/convert"
)

// ErrNoNode says that something is on IPFS, and that there is no node to read it from.
var ErrNoNode = errors.New("it is on IPFS, and there is no node")

// parallelOpens is how many sources are asked for their manifests at a time.
const parallelOpens = 8

// open reads the manifests.
func (c *comparison) open(ctx context.Context) error {
	looker := convert.NewLooker(nil, c.Platforms)
	looker.Workers = c.perLayer
	found, errs := make([][]*subject, len(c.Refs)), make([]error, len(c.Refs))
	var group errgroup.Group
	group.SetLimit(parallelOpens)
	for i, ref := range c.Refs {
		group.Go(func() error {
			found[i], errs[i] = c.openOne(ctx, looker, ref)
			return nil
		})
	}
	_ = group.Wait() // they return none
	for i, err := range errs {
		if err != nil && (!c.KeepGoing || ctx.Err() != nil) {
			return fmt.Errorf("%s: %w", c.Refs[i], err)
		}
		if err != nil {
			c.failed = append(c.failed, Failed{c.Refs[i], err.Error()})
			c.Progress.Note(fmt.Sprintf("%s is left out: %v", c.Refs[i], err))
		}
		c.subjects = append(c.subjects, found[i]...)
	}
	if len(c.subjects) == 0 {
		return errors.New("none of the images can be read")
	}
	for _, s := range c.subjects {
		s.begin(c.Progress)
	}
	return nil
}

func (c *comparison) openOne(ctx context.Context, looker *convert.Looker, ref string) (list []*subject, err error) {
	src, err := c.Open(ctx, ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.sources = append(c.sources, src)
	c.mu.Unlock()
	at := looker.At(src)
	if strings.HasPrefix(ref, "ipfs:") {
		if at.Node, err = c.node(); err != nil {
			return nil, err
		}
	}
	looks, err := at.Manifests(ctx, c.Progress.Note)
	for _, look := range looks {
		list = append(list, &subject{ref: ref, look: look, looker: at, cached: true})
	}
	return list, err
}

// begin shows an image.
func (s *subject) begin(progress Progress) {
	var bytes int64
	for _, l := range distinct(s.look.Layers) {
		s.pending++
		if l.Root == "" {
			bytes += l.Desc.Size
		}
	}
	s.progress = progress.Image(s.ref, bytes)
	if s.pending == 0 {
		s.progress.Done(true)
	}
}

// distinct are layers, each once.
func distinct(layers []convert.LookLayer) (list []convert.LookLayer) {
	seen := map[string]bool{}
	for _, l := range layers {
		if k := key(l); !seen[k] {
			seen[k] = true
			list = append(list, l)
		}
	}
	return list
}
