package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
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
	// after againFirst, and then four times as long, maxTries times: an hour and a half in all.
	maxChecks, parallelChecks = 4096, 4
	checkTime                 = time.Minute
	againFirst, maxTries      = time.Second, 7
	// maxChildren is how many manifests of an index are looked at.
	maxChildren = 64
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
	b := m.below.Load()
	if !ok || m.Share == ShareNone || b == nil || b.peers == nil {
		return
	}
	m.asked.Remove(d)
	m.later(check{digest: d, source: from, due: time.Now()})
	m.nudge()
}

// later has something checked when it is due.
func (m *Mirror) later(c check) {
	m.mu.Lock()
	if len(m.checks) < maxChecks {
		m.checks = append(m.checks, c)
	}
	m.mu.Unlock()
}

// nudge has the loop look at what is due.
func (m *Mirror) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run checks what is due, and lets go what was fetched long ago, until ctx is done.
func (m *Mirror) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var group errgroup.Group
	group.SetLimit(parallelChecks)
	defer func() { _ = group.Wait() }() // they return none
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-tick.C:
		}
		for _, c := range m.takeDue(time.Now()) {
			if c.source.peers || m.Share == ShareAll {
				m.publish(ctx, c) // nobody is asked
				continue
			}
			started := group.TryGo(func() error {
				m.publish(ctx, c)
				m.nudge()
				return nil
			})
			if !started { // when another has ended
				m.later(c)
			}
		}
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
			wait *= 4
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
		return m.isPublicManifest(ctx, place, c.digest)
	}
	return m.isPublicBlob(ctx, place, c.digest)
}

// isPublicManifest says whether anybody gets a manifest, and its config, or of an index those of one of its manifests. That the manifest is there is easily said; that the
// config is, is seen by its bytes. It is asked again if the config is not here yet.
func (m *Mirror) isPublicManifest(ctx context.Context, place Public, d digest.Digest) (bool, error) {
	has, err := place.HasManifest(ctx, d)
	if err != nil || !has {
		return false, err
	}
	var doc struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	f, _, err := m.below.Load().content.Blob(d)
	if err != nil || f.Size > maxManifest {
		return false, err
	}
	data, err := ctd.ReadBlob(ctx, m.below.Load().content, ocispec.Descriptor{Digest: d})
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		return false, err
	}
	if doc.Config != nil {
		return m.isPublicBlob(ctx, place, doc.Config.Digest)
	}
	err = fmt.Errorf("none of its manifests is here: %w", origin.ErrAway)
	for _, child := range doc.Manifests[:min(len(doc.Manifests), maxChildren)] {
		if _, _, gone := m.below.Load().content.Blob(child.Digest); gone != nil || child.Digest == d {
			continue
		}
		var public bool
		if public, err = m.isPublicManifest(ctx, place, child.Digest); public {
			return true, nil
		}
	}
	return false, err
}

// isPublicBlob says whether anybody gets a blob.
func (m *Mirror) isPublicBlob(ctx context.Context, place Public, d digest.Digest) (bool, error) {
	f, _, err := m.below.Load().content.Blob(d)
	if errdefs.IsNotFound(err) {
		return false, fmt.Errorf("%w: %w", err, origin.ErrAway) // it may come
	}
	if err != nil || f.Size == 0 {
		return false, err
	}
	n := min(sampleSize, f.Size)
	off := rand.Int64N(f.Size - n + 1)
	same, err := m.same(ctx, place, d, off, n)
	if errors.Is(err, errors.ErrUnsupported) { // it gives blobs as a whole only
		same, err = m.same(ctx, place, d, 0, n)
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
	list := b.content.Manifests(m.Share == ShareAll)
	slices.Sort(list) // the same ones each time, if there are too many
	for _, d := range list {
		if c, err := mediatype.BlobCid(d); err == nil && len(keys) < maxKeys {
			keys = append(keys, c)
		}
	}
	return keys
}

// Withheld says whether peers do not get a block: one that is a blob which others may not have, and nothing else.
func (m *Mirror) Withheld(c cid.Cid) bool {
	if m.Share == ShareAll || c.Type() != cid.Raw {
		return false // of others nobody knows the CID who has not got them
	}
	b := m.below.Load()
	if b == nil {
		return true // until it is known
	}
	if !b.content.IsPrivate(c) && (!b.files.IsDropped(c) || b.isPublic(c)) {
		return false
	}
	if n, ok := m.needs.Get(c); ok && time.Now().Before(n.until) {
		return !n.is
	}
	m.walk.Lock() // one walk at a time, whoever asks
	defer m.walk.Unlock()
	if n, ok := m.needs.Get(c); ok && time.Now().Before(n.until) {
		return !n.is
	}
	is, err := m.Needs(c)
	if err != nil {
		m.Logger.Warn("a block is not given to peers: it is not known whether something needs it", "block", c.String(), "err", err)
		return true
	}
	m.needs.Add(c, needed{is, time.Now().Add(neededTime)})
	return !is
}

// isPublic says whether a block is a blob that others may have.
func (b *below) isPublic(c cid.Cid) bool {
	d, err := mediatype.BlobDigest(cid.NewCidV1(c.Type(), c.Hash()))
	if err != nil {
		return false
	}
	_, public, err := b.content.Blob(d)
	return err == nil && public
}

// Served is told of what came from peers, or was made public on IPFS, in another way than by the mirror.
func (m *Mirror) Served(d digest.Digest, manifest bool) {
	m.asked.Add(d, source{manifest: manifest, peers: true})
}
