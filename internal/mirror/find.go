package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// fetchTime is how long it may take to fetch a blob from peers, and pieceTime how long the next pieceSize bytes of it. What takes longer the registry is asked for.
	fetchTime, pieceTime = 4 * time.Minute, 10 * time.Second
	pieceSize            = 1 << 20
	// slowAfter is when it is looked at whether a peer will be done in time.
	slowAfter = 10 * time.Second
	// maxRoots is how many files are tried that peers say a blob is.
	maxRoots = 4
	// maxFlights is how many blobs are fetched at a time.
	maxFlights = 64
	// maxSize is how large one may be.
	maxSize = 16 << 30
)

var (
	errNobody = errors.New("no peer has it")
	errLie    = errors.New("a peer says that the blob is another file")
	errBusy   = errors.New("too much is being fetched already")
	errSlow   = errors.New("it comes too slowly")
	errBroken = errors.New("it does not come")
)

// A flight is a blob that is being fetched, and looked for. Mirror.mu guards waiters.
type flight struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	file    ipfs.File // when done
	err     error
}

// open opens a blob, and fetches it if it is not here.
func (m *Mirror) open(ctx context.Context, r request) (*os.File, ipfs.File, error) {
	b := m.below.Load()
	if b == nil {
		return nil, ipfs.File{}, errNobody // yet
	}
	if f, ok := m.own(r.digest); ok {
		if file, err := b.files.Open(f); err == nil {
			return file, f, nil
		}
	}
	if f, ok := m.fetched.Get(r.digest); ok {
		if file, err := b.files.Open(f); err == nil {
			m.asked.Add(r.digest, source{manifest: r.manifest, peers: true})
			return file, f, nil
		}
	}
	if b.peers == nil {
		return nil, ipfs.File{}, errNobody
	}
	f, err := m.join(ctx, b, r)
	if err != nil {
		return nil, f, err
	}
	file, err := b.files.Open(f)
	return file, f, err
}

// join waits for the flight that fetches a blob, and starts it if there is none.
func (m *Mirror) join(ctx context.Context, b *below, r request) (ipfs.File, error) {
	m.mu.Lock()
	fl := m.flights[r.digest]
	if fl == nil {
		if m.closed || len(m.flights) >= maxFlights {
			m.mu.Unlock()
			return ipfs.File{}, errBusy
		}
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime) // others may wait for it, too
		fl = &flight{cancel: cancel, done: make(chan struct{})}
		m.flights[r.digest] = fl
		m.wg.Go(func() {
			defer cancel()
			fl.file, fl.err = m.find(fctx, b, r)
			m.mu.Lock()
			if m.flights[r.digest] == fl {
				delete(m.flights, r.digest)
			}
			m.mu.Unlock()
			close(fl.done)
		})
	}
	fl.waiters++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if fl.waiters--; fl.waiters == 0 {
			fl.cancel()
			if m.flights[r.digest] == fl { // who comes next has one of his own
				delete(m.flights, r.digest)
			}
		}
	}()
	select {
	case <-fl.done:
		return fl.file, fl.err
	case <-ctx.Done():
		return ipfs.File{}, ctx.Err()
	}
}

// find has a blob fetched from those who say that they have it.
func (m *Mirror) find(ctx context.Context, b *below, r request) (found ipfs.File, err error) {
	key := cid.Undef
	if r.manifest {
		if key, err = mediatype.BlobCid(r.digest); err != nil {
			return found, err
		}
	}
	err = errNobody
	type claim struct {
		root cid.Cid
		size int64
	}
	tried := map[claim]bool{}
	b.peers.FindBlob(ctx, r.digest.String(), key, func(peer string, said ipfs.File) bool {
		one := claim{said.Cid, said.Size}
		if tried[one] || len(tried) >= maxRoots || ctx.Err() != nil {
			return ctx.Err() != nil
		}
		tried[one] = true
		if found, err = b.verify(ctx, r, said); err == nil {
			return true
		}
		m.mu.Lock() // what has come of it goes later: somebody else may be after it
		m.kept = append(m.kept, kept{said.Cid, time.Now()})
		m.mu.Unlock()
		if errors.Is(err, errLie) {
			b.peers.Lied(ctx, peer, fmt.Errorf("blob %s: %w", r.digest, err))
		} else if errors.Is(err, errBroken) && ctx.Err() == nil {
			b.peers.Broke(peer)
		}
		return err == nil
	})
	if err != nil {
		return found, err
	}
	m.fetched.Add(r.digest, found)
	m.asked.Add(r.digest, source{manifest: r.manifest, peers: true})
	m.mu.Lock()
	m.kept = append(m.kept, kept{found.Cid, time.Now()})
	m.mu.Unlock()
	return found, nil
}

// verify fetches a file, and says whether it is the blob. Of what can be a lie without a byte of it, none is fetched.
func (b *below) verify(ctx context.Context, r request, said ipfs.File) (ipfs.File, error) {
	if r.manifest && said.Size > maxManifest || said.Size > maxSize {
		return ipfs.File{}, fmt.Errorf("%d bytes are too many", said.Size)
	}
	if key, err := mediatype.BlobCid(r.digest); err == nil && ipfs.LayoutBlob.NumLeaves(said.Size) == 1 && !key.Equals(said.Cid) {
		return ipfs.File{}, errLie
	}
	f, err := b.load(ctx, said)
	if err != nil {
		return f, err
	}
	err = b.hash(ctx, r.digest, f)
	if errors.Is(err, ipfs.ErrFile) {
		err = fmt.Errorf("%w: %w", errLie, err)
	}
	if err != nil {
		return f, err
	}
	return f, b.files.Ensure(ctx, f)
}

func (b *below) load(ctx context.Context, said ipfs.File) (ipfs.File, error) {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	f, err := b.files.Load(ctx, said.Cid, said.Size)
	if errors.Is(err, ipfs.ErrFile) {
		err = fmt.Errorf("%w: %w", errLie, err)
	}
	return f, broken(ctx, err)
}

// broken says of an error whether it is that a peer did not give what it said it has: time ran out, or nobody has it.
func broken(ctx context.Context, err error) error {
	if err != nil && (ctx.Err() != nil || errors.Is(err, ipfs.ErrNotFound)) {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return err
}

// hash reads all of a file as it comes.
func (b *below) hash(ctx context.Context, d digest.Digest, f ipfs.File) error {
	verifier := d.Verifier()
	buf := make([]byte, min(pieceSize, f.Size))
	start := time.Now()
	for off := int64(0); off < f.Size; {
		if deadline, ok := ctx.Deadline(); ok && isSlow(off, f.Size, time.Since(start), time.Until(deadline)) {
			return errSlow
		}
		piece := buf[:min(pieceSize, f.Size-off)]
		if err := b.read(ctx, f, piece, off); err != nil {
			return err
		}
		if _, err := verifier.Write(piece); err != nil {
			return err
		}
		off += int64(len(piece))
	}
	if !verifier.Verified() {
		return errLie
	}
	return nil
}

// isSlow says whether the rest of a blob will not come in the time that is left.
func isSlow(done, all int64, took, left time.Duration) bool {
	if took < slowAfter {
		return false
	}
	return float64(all-done)*took.Seconds() > float64(done)*left.Seconds()
}

func (b *below) read(ctx context.Context, f ipfs.File, p []byte, off int64) error {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	n, err := b.files.ReadAt(ctx, f, p, off)
	if n == len(p) {
		return nil
	}
	return broken(ctx, errors.Join(io.ErrUnexpectedEOF, err))
}
