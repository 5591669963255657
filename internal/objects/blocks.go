package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
)

const digestSize = 32

// digestOf returns the sha2-256 digest of c; ok is false for other hash functions,
// which the store never holds.
func digestOf(c cid.Cid) (digest string, ok bool) {
	p := c.Prefix()
	if p.MhType != mh.SHA2_256 || p.MhLength != digestSize {
		return "", false
	}
	h := c.Hash()
	return string(h[len(h)-digestSize:]), true
}

func isRaw(c cid.Cid) bool { return c.Prefix().Codec == cid.Raw }

// Get returns the verified bytes of a block: ipfs.ErrNotFound, wrapped, if it is not
// here; ipfs.ErrHash if it is damaged, and then it is gone afterwards.
func (s *Store) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get block %s: %w", c, err)
	}
	data, err := s.get(c)
	if err != nil {
		return nil, fmt.Errorf("get block %s: %w", c, err)
	}
	return data, nil
}

func (s *Store) get(c cid.Cid) ([]byte, error) {
	digest, ok := digestOf(c)
	if !ok {
		return nil, ipfs.ErrNotFound
	}
	if isRaw(c) {
		return s.getRaw(c, digest)
	}
	data, err := s.db.block(digest)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, ipfs.ErrNotFound
	}
	if err := ipfs.Verify(c, data); err != nil {
		s.log.Warn("removed a damaged block; it will be fetched again", "cid", c.String(), "error", err)
		return nil, errors.Join(err, s.db.flush(entry{bucket: bucketBlocks, key: []byte(digest)}))
	}
	return data, nil
}

// getRaw reads a leaf: the object of that name, or out of a larger object.
func (s *Store) getRaw(c cid.Cid, digest string) ([]byte, error) {
	data, loose := s.readLeaf(c, ref{object: c})
	if loose == nil {
		s.Touch(c)
		return data, nil
	}
	refs, err := s.refs(digest)
	if err != nil {
		return nil, err
	}
	worst := loose
	for _, r := range refs {
		data, err := s.readLeaf(c, r)
		if err == nil {
			s.Touch(r.object)
			return data, nil
		}
		if errors.Is(worst, ipfs.ErrNotFound) {
			worst = err
		}
	}
	return nil, worst
}

// readLeaf reads a leaf of an object and verifies it. A damaged object is removed.
func (s *Store) readLeaf(c cid.Cid, r ref) ([]byte, error) {
	object := r.object
	f, err := os.Open(s.objectPath(object))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ipfs.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	off, length := r.in(info.Size())
	data := make([]byte, length)
	if _, err := f.ReadAt(data, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, err // the disk may recover: keep the object
	}
	if err := ipfs.Verify(c, data); err != nil {
		if !isRaw(object) {
			s.salvage(f, object, info.Size())
		}
		s.discard(object, info, err)
		return nil, err
	}
	return data, nil
}

// salvage writes the leaves of a damaged object that are still good as loose ones: they
// may be the only copies there are.
func (s *Store) salvage(f *os.File, object cid.Cid, size int64) {
	for _, layout := range layouts {
		s.salvageAs(f, ref{object: object, layout: layout}, size)
	}
}

// salvageAs is salvage of an object that was cut so, if it was.
func (s *Store) salvageAs(f *os.File, r ref, size int64) {
	object, buf := r.object, make([]byte, r.layout.LeafSize())
	for ; ; r.leaf++ {
		off, length := r.in(size)
		if length == 0 {
			return
		}
		if _, err := f.ReadAt(buf[:length], off); err != nil {
			continue // this one is lost
		}
		block, err := ipfs.NewBlock(cid.Raw, buf[:length])
		if err != nil {
			return
		}
		digest, _ := digestOf(block.Cid)
		known, err := s.db.get(bucketRefs, digest+string(object.Hash()[2:]))
		if err == nil && known != nil {
			err = s.writeObject(block.Cid, block.Data, putMode)
		}
		if err != nil {
			s.log.Warn("cannot save the good leaves of a damaged object", "cid", object.String(), "error", noSpace(s.dir, err))
			return
		}
	}
}

// in says where the leaf lies in an object of this size. A loose leaf is read
// whole, up to the largest block, but never more: a damaged one may have any size.
func (r ref) in(size int64) (off, length int64) {
	if isRaw(r.object) {
		return 0, min(size, ipfs.MaxBlock)
	}
	off = int64(r.leaf) * r.layout.LeafSize()
	return off, max(0, min(size-off, r.layout.LeafSize()))
}

// layouts are those that an object may have.
var layouts = [...]ipfs.Layout{ipfs.LayoutFile, ipfs.LayoutBlob}

// ref says that a block is leaf number leaf of an object, which was cut so.
type ref struct {
	object cid.Cid
	leaf   int
	layout ipfs.Layout
}

// entry is the reference in the database: the number, and the layout unless it is LayoutFile.
func (r ref) entry(digest string) entry {
	object, _ := digestOf(r.object)
	value := binary.AppendUvarint(nil, uint64(r.leaf))
	if r.layout != ipfs.LayoutFile {
		value = append(value, byte(r.layout))
	}
	return entry{bucketRefs, []byte(digest + object), value}
}

// refs returns where a leaf may lie within larger objects; some may be gone since.
func (s *Store) refs(digest string) ([]ref, error) {
	var refs []ref
	err := s.db.scan(bucketRefs, []byte(digest), func(key, value []byte) bool {
		leaf, n := binary.Uvarint(value)
		hash, err := mh.Encode(key[len(digest):], mh.SHA2_256)
		if n > 0 && err == nil {
			r := ref{object: cid.NewCidV1(cid.DagProtobuf, hash), leaf: int(leaf)}
			if len(value) > n {
				r.layout = ipfs.Layout(value[n])
			}
			refs = append(refs, r)
		}
		return len(refs) < 16 // the same leaf in very many files: some of them will do
	})
	return refs, err
}

// Has says whether the block is here.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.BlockSize(ctx, c)
	if errors.Is(err, ipfs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// BlockSize returns the size of a block without reading it.
func (s *Store) BlockSize(ctx context.Context, c cid.Cid) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("size of block %s: %w", c, err)
	}
	n, err := s.blockSize(c)
	if err != nil {
		return 0, fmt.Errorf("size of block %s: %w", c, err)
	}
	return n, nil
}

func (s *Store) blockSize(c cid.Cid) (int, error) {
	digest, ok := digestOf(c)
	if !ok {
		return 0, ipfs.ErrNotFound
	}
	if !isRaw(c) {
		data, err := s.db.block(digest)
		if err == nil && data == nil {
			err = ipfs.ErrNotFound
		}
		return len(data), err
	}
	_, n, err := s.find(c, digest)
	return n, err
}

// find returns an object that holds a leaf, and the leaf's size.
func (s *Store) find(c cid.Cid, digest string) (object cid.Cid, size int, err error) {
	if info, err := os.Lstat(s.objectPath(c)); err == nil {
		return c, int(info.Size()), nil
	}
	refs, err := s.refs(digest)
	if err != nil {
		return cid.Undef, 0, err
	}
	for _, r := range refs {
		if info, err := os.Lstat(s.objectPath(r.object)); err == nil {
			_, n := r.in(info.Size())
			return r.object, int(n), nil
		}
	}
	return cid.Undef, 0, ipfs.ErrNotFound
}

// Put verifies and stores blocks. Large batches are hashed and written on all cores.
// After an error some of the blocks may be stored, each of them whole.
func (s *Store) Put(ctx context.Context, blocks ...ipfs.Block) error {
	return s.putAll(ctx, putMode, blocks)
}

// Cache is Put of blocks that came from elsewhere and can be fetched again: what Free may
// remove.
func (s *Store) Cache(ctx context.Context, blocks ...ipfs.Block) error {
	return s.putAll(ctx, fetchedMode, blocks)
}

func (s *Store) putAll(ctx context.Context, mode os.FileMode, blocks []ipfs.Block) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, b := range blocks {
		if err := ctx.Err(); err != nil {
			return errors.Join(fmt.Errorf("put block %s: %w", b.Cid, err), g.Wait())
		}
		if len(blocks) == 1 {
			return s.put(b, mode)
		}
		g.Go(func() error { return s.put(b, mode) })
	}
	return g.Wait()
}

func (s *Store) put(b ipfs.Block, mode os.FileMode) error {
	if err := b.Check(); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if err := s.withRoom(func() error { return s.putVerified(b, mode) }); err != nil {
		return fmt.Errorf("put block %s: %w", b.Cid, noSpace(s.dir, err))
	}
	return nil
}

// putVerified stores a block, and says that it is there, while nothing is evicted.
func (s *Store) putVerified(b ipfs.Block, mode os.FileMode) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	digest, _ := digestOf(b.Cid)
	if !isRaw(b.Cid) {
		if err := s.db.putBlock(digest, b.Data); err != nil {
			return err
		}
		s.markDirty()
		return nil
	}
	if object, n, err := s.find(b.Cid, digest); err == nil && n == len(b.Data) {
		s.room.wasPut(object, mode)
		s.Touch(object)
		return errors.Join(s.setMode(object, mode), s.renew(object, mode))
	}
	s.room.wasPut(b.Cid, mode)
	if err := s.writeObject(b.Cid, b.Data, mode); err != nil {
		return err
	}
	s.markDirty()
	return nil
}

// writeObject writes verified bytes as the object c.
func (s *Store) writeObject(c cid.Cid, data []byte, mode os.FileMode) error {
	tmp := s.tempPath()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = writeSparse(f, data, 0, int64(len(data)))
		err = errors.Join(err, f.Chmod(mode), f.Close()) // whatever the umask
	}
	if err == nil {
		err = s.place(tmp, c, int64(len(data)), mode)
	}
	if err != nil {
		return errors.Join(err, s.removeTemp(tmp))
	}
	return nil
}

// tempPath returns a name in partial/ that nobody else uses, until place or removeTemp.
func (s *Store) tempPath() string {
	path := filepath.Join(s.dir, partialName, strconv.FormatUint(s.serial.Add(1), 36))
	s.temps.Store(path, nil)
	return path
}

// removeTemp removes what there may be of a file in the making.
func (s *Store) removeTemp(path string) error {
	defer s.temps.Delete(path)
	return removeIfThere(path)
}

// place renames a finished file, which has this mode, to be the object c. An object that is there stays, since
// mounts may have it open and it holds the same bytes, unless its size proves it wrong.
func (s *Store) place(tmp string, c cid.Cid, size int64, mode os.FileMode) error {
	path := s.objectPath(c)
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOENT) { // the shard's first object
		if err = os.Mkdir(filepath.Dir(path), 0o700); err == nil || errors.Is(err, os.ErrExist) {
			err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		info, serr := os.Lstat(path)
		if serr == nil && info.Size() == size {
			return errors.Join(s.setMode(c, mode), s.removeTemp(tmp))
		}
		if serr == nil {
			s.discard(c, info, fmt.Errorf("%d bytes, want %d", info.Size(), size))
		}
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	s.temps.Delete(tmp)
	s.account(1, size)
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
