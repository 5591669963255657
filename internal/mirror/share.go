package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// sampleSize is how much of a blob is compared with what its registry gives anybody.
	sampleSize = 4096
	// maxChecks is how many blobs wait for that, parallelChecks how many of them are at it, each for checkTime at most. If a registry is away it is asked again
	// after againFirst, and then ten times as long, maxTries times.
	maxChecks, parallelChecks = 4096, 4
	checkTime                 = time.Minute
	againFirst, maxTries      = 10 * time.Second, 3
	// neededTime is how long it is remembered whether something else needs a block.
	neededTime = 30 * time.Second
)

// A check finds out whether a blob is public.
type check struct {
	digest digest.Digest
	source source
	due    time.Time
	tries  int
}

// needed says whether something else than the content store needs a block.
type needed struct {
	is    bool
	until time.Time
}

// Committed is told of each blob that the content store has got. It returns at once.
func (m *Mirror) Committed(d digest.Digest) {
	from, ok := m.asked.Get(d)
	if !ok || m.Share == ShareNone {
		return
	}
	m.asked.Remove(d)
	m.later(check{digest: d, source: from, due: time.Now()})
}

// later has something checked when it is due.
func (m *Mirror) later(c check) {
	m.mu.Lock()
	if len(m.checks) < maxChecks {
		m.checks = append(m.checks, c)
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run checks what is due, and lets go what was fetched long ago, until ctx is done.
func (m *Mirror) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-tick.C:
		}
		var group errgroup.Group
		group.SetLimit(parallelChecks)
		for _, c := range m.takeDue(time.Now()) {
			group.Go(func() error {
				m.publish(ctx, c)
				return nil
			})
		}
		_ = group.Wait() // they return none
		m.dropKept(time.Now().Add(-keepFetched))
	}
}

func (m *Mirror) takeDue(now time.Time) (due []check) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rest []check
	for _, c := range m.checks {
		if c.due.After(now) {
			rest = append(rest, c)
		} else {
			due = append(due, c)
		}
	}
	m.checks = rest
	return due
}

// publish publishes a blob if it is public.
func (m *Mirror) publish(ctx context.Context, c check) {
	public, err := c.source.peers, error(nil)
	if !public && m.Share == SharePublic {
		public, err = m.isPublic(ctx, c)
	}
	if err != nil && errors.Is(err, origin.ErrAway) && c.tries < maxTries {
		wait := againFirst
		for range c.tries {
			wait *= 10
		}
		c.tries, c.due = c.tries+1, time.Now().Add(wait)
		m.later(c)
		return
	}
	if err != nil {
		m.Logger.Debug("a blob is not given to peers: its registry does not give it to anybody", "digest", c.digest.String(), "repository", c.source.repository, "err", err)
	}
	if !public && m.Share == SharePublic {
		return
	}
	// With ShareAll it is not public by that, and others are told of it all the same.
	if err := m.below.Load().content.Publish(c.digest, public, c.source.manifest); err != nil && !errdefs.IsNotFound(err) {
		m.Logger.Warn("a blob is not given to peers", "digest", c.digest.String(), "err", err)
	}
}

// isPublic asks the registry that a blob came from.
func (m *Mirror) isPublic(ctx context.Context, c check) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	place, err := m.Public(c.source.repository)
	if err != nil {
		return false, err
	}
	if c.source.manifest {
		return place.HasManifest(ctx, c.digest)
	}
	f, _, err := m.below.Load().content.Blob(c.digest)
	if err != nil || f.Size == 0 {
		return false, err
	}
	n := min(sampleSize, f.Size)
	off := rand.Int64N(f.Size - n + 1)
	same, err := m.same(ctx, place, c.digest, off, n)
	if errors.Is(err, errors.ErrUnsupported) { // it gives blobs as a whole only
		same, err = m.same(ctx, place, c.digest, 0, n)
	}
	return same, err
}

// same says whether bytes of a blob are those that a registry has.
func (m *Mirror) same(ctx context.Context, place Public, d digest.Digest, off, n int64) (bool, error) {
	body, err := place.Range(ctx, d, off, n)
	if err != nil {
		return false, err
	}
	defer body.Close()
	theirs, ours := make([]byte, n), make([]byte, n)
	if _, err := io.ReadFull(body, theirs); err != nil {
		return false, fmt.Errorf("%w: %w", err, origin.ErrAway)
	}
	r, err := m.below.Load().content.ReaderAt(ctx, ocispec.Descriptor{Digest: d})
	if err != nil {
		return false, err
	}
	defer r.Close()
	if _, err := r.ReadAt(ours, off); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(theirs, ours), nil
}

// Lookup returns the file of a blob that others may have: it is what peers are told.
func (m *Mirror) Lookup(_ context.Context, text string) (ipfs.File, bool) {
	d := digest.Digest(text)
	if d.Validate() != nil {
		return ipfs.File{}, false
	}
	f, ok := m.own(d)
	return f, ok && f.Size > 0
}

// Keys are by what others find this machine, if routers and the DHT are told of it.
func (m *Mirror) Keys(context.Context) (keys []cid.Cid) {
	b := m.below.Load()
	if b == nil || m.Share == ShareNone {
		return nil
	}
	for _, d := range b.content.Manifests(m.Share == ShareAll) {
		if c, err := mediatype.BlobCid(d); err == nil && len(keys) < maxKeys {
			keys = append(keys, c)
		}
	}
	return keys
}

// Withheld says whether peers do not get a block: one that is a blob which others may not have, and nothing else.
func (m *Mirror) Withheld(_ context.Context, c cid.Cid) bool {
	if m.Share == ShareAll {
		return false
	}
	b := m.below.Load()
	if b == nil {
		return true // until it is known
	}
	if !b.content.IsPrivate(c) && !b.files.IsDropped(c) {
		return false
	}
	now := time.Now()
	if n, ok := m.needs.Get(c); ok && now.Before(n.until) {
		return !n.is
	}
	is, err := m.Needs(c)
	if err != nil {
		m.Logger.Warn("a block is not given to peers: it is not known whether something needs it", "block", c.String(), "err", err)
		return true
	}
	m.needs.Add(c, needed{is, now.Add(neededTime)})
	return !is
}
