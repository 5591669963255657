// Package packs keeps blocks in compressed form, for peers that want them: what a node would
// otherwise compress each time it is asked. Nothing depends on it. Whatever is missing, lost or
// damaged here is made again from the block itself.
//
//	DIR/N.pack  records, one after the other: 32 bytes of the block's sha2-256 digest, its size,
//	            the frame's length and a checksum (CRC-32C) of all that, 4 bytes each, big
//	            endian, and the frame
//
// New records are appended to the newest file, until it has packSize bytes. Where each is, is
// kept in memory, and read from the files by Open. Nothing is synced: a record that a crash cut
// short fails its checksum. When there is not enough room, the oldest files are removed, whole.
//
// Concurrency. All methods may be called by any number of goroutines. Keep hands its frame to
// the one goroutine that writes; Close waits for it.
package packs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
)

const (
	suffix     = ".pack"
	packSize   = 64 << 20
	digestSize = 32
	headSize   = digestSize + 3*4
	// maxWaiting bounds the bytes that Keep has taken and that are not written.
	maxWaiting = 16 << 20
	// maxFrame bounds a frame, whatever a damaged file says.
	maxFrame = 2 << 20
)

type digest [digestSize]byte

// record says where a frame is.
type record struct {
	pack         *pack
	off          int64 // of the record
	size, length uint32
	sum          uint32
}

// pack is one file.
type pack struct {
	number uint64
	file   *os.File
	size   int64
	users  sync.RWMutex // held to read while the file is read, and to write when it is closed
}

// Packs keeps compressed forms in one directory.
type Packs struct {
	dir   string
	room  func() int64
	log   *slog.Logger
	table *crc32.Table

	mu      sync.Mutex // guards what follows
	full    int64      // bytes from which on a file is not appended to
	records map[digest]record
	packs   []*pack // the oldest first
	closed  bool

	bytes   atomic.Int64 // of all files
	waiting atomic.Int64
	queue   chan entry
	wg      sync.WaitGroup
}

// entry is a frame to be written.
type entry struct {
	digest digest
	frame  []byte
	size   int
}

// Open opens the directory and makes it if there is none. room says how many bytes all of it
// may take; it is asked again and again.
func Open(dir string, room func() int64, log *slog.Logger) (*Packs, error) {
	p := &Packs{
		dir: dir, room: room, log: log, table: crc32.MakeTable(crc32.Castagnoli),
		full: packSize, records: make(map[digest]record), queue: make(chan entry, 1024),
	}
	if err := p.load(); err != nil {
		for _, k := range p.packs {
			err = errors.Join(err, k.file.Close())
		}
		return nil, fmt.Errorf("open compressed forms: %w", err)
	}
	p.wg.Go(p.write)
	return p, nil
}

// Close writes what was kept and closes all files. Nothing may be called after it.
func (p *Packs) Close() error {
	p.mu.Lock()
	p.closed = true
	close(p.queue)
	p.mu.Unlock()
	p.wg.Wait()
	var errs []error
	for _, k := range p.packs {
		errs = append(errs, k.file.Close())
	}
	return errors.Join(errs...)
}

// Bytes says how much of the disk all of it takes.
func (p *Packs) Bytes() int64 { return p.bytes.Load() }

// Waiting says how many bytes were kept and are not written yet.
func (p *Packs) Waiting() int64 { return p.waiting.Load() }

// Form returns the frame of a block, as it was kept, and the block's size.
func (p *Packs) Form(c cid.Cid) (frame []byte, size int, ok bool) {
	d, ok := digestOf(c)
	if !ok {
		return nil, 0, false
	}
	p.mu.Lock()
	r, ok := p.records[d]
	p.mu.Unlock()
	if !ok {
		return nil, 0, false
	}
	buf := make([]byte, headSize+r.length)
	err := r.pack.read(buf, r.off)
	if err == nil && p.checksum(buf) != r.sum {
		err = errors.New("wrong checksum")
	}
	if err == nil {
		return buf[headSize:], int(r.size), true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.records[d] == r {
		delete(p.records, d)
		p.log.Warn("forgot a damaged compressed form", "cid", c.String(), "err", err)
	}
	return nil, 0, false
}

// Keep takes the frame of a block, if there is time to write it. The frame must not be changed
// afterwards.
func (p *Packs) Keep(c cid.Cid, frame []byte, size int) {
	d, ok := digestOf(c)
	if !ok || len(frame) > maxFrame || p.waiting.Load() > maxWaiting {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, there := p.records[d]; there || p.closed {
		return
	}
	select {
	case p.queue <- entry{d, frame, size}:
		p.waiting.Add(int64(len(frame)))
	default:
	}
}

// Drop removes files, the oldest first, until so many bytes are free, and says how many are.
func (p *Packs) Drop(bytes int64) (freed int64) {
	for freed < bytes {
		n, ok := p.dropOldest()
		if !ok {
			break
		}
		freed += n
	}
	return freed
}

func (p *Packs) dropOldest() (int64, bool) {
	p.mu.Lock()
	if len(p.packs) == 0 || p.closed {
		p.mu.Unlock()
		return 0, false
	}
	k := p.packs[0]
	p.packs = p.packs[1:]
	for d, r := range p.records {
		if r.pack == k {
			delete(p.records, d)
		}
	}
	size := k.size
	p.bytes.Add(-size)
	p.mu.Unlock()
	k.users.Lock()
	defer k.users.Unlock()
	if err := errors.Join(os.Remove(k.file.Name()), k.file.Close()); err != nil {
		p.log.Warn("cannot remove compressed forms", "err", err)
	}
	return size, true
}

func (k *pack) read(buf []byte, off int64) error {
	k.users.RLock()
	defer k.users.RUnlock()
	_, err := k.file.ReadAt(buf, off)
	return err
}

// write writes what is kept until Close.
func (p *Packs) write() {
	for e := range p.queue {
		err := p.append(e)
		p.waiting.Add(-int64(len(e.frame)))
		if err != nil {
			p.log.Warn("cannot keep a compressed form; it is made again when it is wanted", "err", err)
		}
	}
}

func (p *Packs) append(e entry) error {
	buf := make([]byte, headSize, headSize+len(e.frame))
	copy(buf, e.digest[:])
	binary.BigEndian.PutUint32(buf[digestSize:], uint32(e.size))
	binary.BigEndian.PutUint32(buf[digestSize+4:], uint32(len(e.frame)))
	buf = append(buf, e.frame...)
	sum := p.checksum(buf)
	binary.BigEndian.PutUint32(buf[digestSize+8:], sum)
	for over := p.bytes.Load() + int64(len(buf)) - p.room(); over > 0; {
		n, ok := p.dropOldest()
		if !ok {
			return nil // there is no room at all
		}
		over -= n
	}
	k, err := p.newest()
	if err != nil {
		return err
	}
	k.users.RLock() // another may be about to drop it
	_, err = k.file.WriteAt(buf, k.size)
	k.users.RUnlock()
	if err != nil {
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.packs, k) {
		return nil // dropped meanwhile
	}
	if _, there := p.records[e.digest]; there {
		return nil // kept twice at once; the next record takes the place of this one
	}
	p.records[e.digest] = record{k, k.size, uint32(e.size), uint32(len(e.frame)), sum}
	k.size += int64(len(buf))
	p.bytes.Add(int64(len(buf)))
	return nil
}

// newest returns the file to append to.
func (p *Packs) newest() (*pack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	number := uint64(0)
	if n := len(p.packs); n > 0 {
		last := p.packs[n-1]
		if last.size < p.full {
			return last, nil
		}
		number = last.number + 1
	}
	path := filepath.Join(p.dir, strconv.FormatUint(number, 10)+suffix)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	k := &pack{number: number, file: f}
	p.packs = append(p.packs, k)
	return k, nil
}

// checksum is that of a record, whatever stands in its place.
func (p *Packs) checksum(rec []byte) uint32 {
	sum := crc32.Update(0, p.table, rec[:digestSize+8])
	return crc32.Update(sum, p.table, rec[headSize:])
}

// load opens all files.
func (p *Packs) load() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	names, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(name.Name(), suffix), 10, 64)
		if err != nil || !strings.HasSuffix(name.Name(), suffix) {
			continue // none of ours
		}
		f, err := os.OpenFile(filepath.Join(p.dir, name.Name()), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		p.packs = append(p.packs, &pack{number: number, file: f})
	}
	slices.SortFunc(p.packs, func(a, b *pack) int { return int(a.number) - int(b.number) })
	for _, k := range p.packs {
		if err := p.scan(k); err != nil {
			return err
		}
	}
	return nil
}

// scan finds the records of a file. What follows the last whole one is cut off.
func (p *Packs) scan(k *pack) error {
	info, err := k.file.Stat()
	if err != nil {
		return err
	}
	var head [headSize]byte
	for {
		_, err := k.file.ReadAt(head[:], k.size)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		r := record{
			pack: k, off: k.size,
			size:   binary.BigEndian.Uint32(head[digestSize:]),
			length: binary.BigEndian.Uint32(head[digestSize+4:]),
			sum:    binary.BigEndian.Uint32(head[digestSize+8:]),
		}
		end := k.size + headSize + int64(r.length)
		if err != nil || r.length == 0 || r.length > maxFrame || r.size > maxFrame || end > info.Size() {
			break
		}
		p.records[digest(head[:digestSize])] = r
		k.size = end
	}
	p.bytes.Add(k.size)
	if k.size < info.Size() {
		return k.file.Truncate(k.size)
	}
	return nil
}

// digestOf returns the sha2-256 digest of c.
func digestOf(c cid.Cid) (d digest, ok bool) {
	h := c.Hash()
	if len(h) != 2+digestSize {
		return d, false
	}
	copy(d[:], h[2:])
	return d, true
}
