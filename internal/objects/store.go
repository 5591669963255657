// Package objects stores whole files by CID, one plain file each.
package objects

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// ErrLocked says that another process has the store open.
var ErrLocked = errors.New("store is in use")

var errSkeleton = errors.New("objects: not available yet")

// Options configure a Store.
type Options struct {
	Logger *slog.Logger
}

// A Store keeps blocks and files in one directory.
type Store struct{ dir string }

// Stats counts what is stored.
type Stats struct{ Objects, Bytes int64 }

// Open opens or creates the store in dir.
func Open(dir string, opts Options) (*Store, error) { return nil, errSkeleton }

// Path returns the path of an object below the objects directory: "xy/CID".
func Path(c cid.Cid) string {
	s := c.String()
	return filepath.Join(s[len(s)-3:len(s)-1], s)
}

func (s *Store) ObjectsDir() string { return filepath.Join(s.dir, "objects") }

func (s *Store) Get(ctx context.Context, c cid.Cid) ([]byte, error)        { return nil, errSkeleton }
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error)          { return false, errSkeleton }
func (s *Store) BlockSize(ctx context.Context, c cid.Cid) (int, error)     { return 0, errSkeleton }
func (s *Store) Put(ctx context.Context, blocks ...ipfs.Block) error       { return errSkeleton }
func (s *Store) Pin(ctx context.Context, pin ipfs.Pin) error               { return errSkeleton }
func (s *Store) Unpin(ctx context.Context, pin ipfs.Pin) error             { return errSkeleton }
func (s *Store) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) { return nil, errSkeleton }
func (s *Store) Sync(ctx context.Context) error                            { return errSkeleton }
func (s *Store) Stats() Stats                                              { return Stats{} }
func (s *Store) Close() error                                              { return nil }

func (s *Store) HasFile(f ipfs.File) bool               { return false }
func (s *Store) OpenFile(f ipfs.File) (*os.File, error) { return nil, errSkeleton }
func (s *Store) Create(f ipfs.File) (*Partial, error)   { return nil, errSkeleton }

// A Partial is a file that is being put together from its leaves.
type Partial struct{}

func (p *Partial) WriteLeaf(i int, data []byte) error      { return errSkeleton }
func (p *Partial) Have(i int) bool                         { return false }
func (p *Partial) Missing() []int                          { return nil }
func (p *Partial) ReadAt(b []byte, off int64) (int, error) { return 0, errSkeleton }
func (p *Partial) Commit() error                           { return errSkeleton }
func (p *Partial) Abort() error                            { return nil }
