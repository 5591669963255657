// Package fetch decides what to get next, from whom, and never twice.
package fetch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
)

var errSkeleton = errors.New("fetch: not available yet")

// A Source delivers verified blocks: ipfs.Fetcher.
type Source interface {
	Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error
}

// Options configure a Fetcher.
type Options struct {
	Timeout time.Duration // how long a read may wait for the leaves it needs; default 30 s
	Logger  *slog.Logger
}

// Stats counts what was fetched and read.
type Stats struct {
	Files    int64 // files completed
	Bytes    int64 // bytes of leaves that came from the source
	InFlight int64 // leaves asked for and not here yet
	Hits     int64 // reads answered from this disk
	Misses   int64 // reads that had to wait for the source
}

// A Fetcher gets files into an object store.
type Fetcher struct{ store *objects.Store }

// New returns a Fetcher that fills store from src.
func New(store *objects.Store, src Source, opts Options) *Fetcher { return &Fetcher{store: store} }

func (f *Fetcher) ReadAt(ctx context.Context, file ipfs.File, p []byte, off int64) (int, error) {
	return 0, errSkeleton
}
func (f *Fetcher) Local(file ipfs.File) (*os.File, bool)            { return nil, false }
func (f *Fetcher) Ensure(ctx context.Context, file ipfs.File) error { return errSkeleton }
func (f *Fetcher) Stats() Stats                                     { return Stats{} }
func (f *Fetcher) Close() error                                     { return nil }
