// Package packs keeps blocks in compressed form, for peers that want them: what a node would
// otherwise compress each time it is asked. Nothing depends on it. Whatever is missing, lost or
// damaged here is made again from the block itself.
//
//	DIR/N.pack  records, one after the other: 32 bytes of the block's sha2-256 digest, its size,
//	            the frame's length and a checksum (CRC-32C) of all that, 4 bytes each, big
//	            endian, and the frame
//
// New records are appended to the newest file, until it has packSize bytes. Where each is, is
// kept in memory, and read from the files after Start: until then a form is not found. Nothing is
// synced: a record that a crash cut short fails its checksum. A file that cannot be read is removed.
//
// How much room there is, is asked for each record and each trimInterval, since objects go and
// others fill the disk: when there is not enough, the oldest files are removed, whole. While it
// is not known, nothing is written or removed.
//
// Concurrency. All methods may be called by any number of goroutines. Keep hands its frame to
// the one goroutine, of Start, that reads what is there, writes and trims; Close waits for it.
package packs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

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
	// trimInterval is how often it is looked whether there is still room for what is there.
	trimInterval = time.Minute
)

type digest [digestSize]byte

// record says where a frame is.
type record struct {
	pack         *pack
	off          int64 // of the record
	size, length uint32
	sum          uint32
}

// Packs keeps compressed forms in one directory.
type Packs struct {
	dir      string
	log      *slog.Logger
	table    *crc32.Table
	full     int64 // bytes from which on a file is not appended to
	interval time.Duration
	scanned  chan struct{} // closed when the records of all files are known

	mu      sync.Mutex // guards what follows
	records map[digest]record
	packs   []*pack // the oldest first
	next    uint64  // number of the next file
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

// Room says how many bytes all forms may take, and whether that is known yet.
type Room func() (bytes int64, known bool)

// Open opens the directory and makes it if there is none. Nothing is found or written before
// Start.
func Open(dir string, log *slog.Logger) (*Packs, error) {
	p := &Packs{
		dir: dir, log: log, table: crc32.MakeTable(crc32.Castagnoli), full: packSize, interval: trimInterval,
		scanned: make(chan struct{}), records: make(map[digest]record), queue: make(chan entry, 1024),
	}
	if err := p.openAll(); err != nil {
		return nil, fmt.Errorf("open compressed forms: %w", err)
	}
	return p, nil
}

// Start reads where everything is, and writes what is kept, both in the background. room is asked
// again and again. Start may be called once.
func (p *Packs) Start(room Room) { p.wg.Go(func() { p.run(room) }) }

// Close writes what was kept, unless not even all files are read, and closes them. Nothing may be
// called after it.
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
		n, ok := p.drop(nil)
		if !ok {
			break
		}
		freed += n
	}
	return freed
}

// run trims, reads the files, and then writes what is kept, until Close.
func (p *Packs) run(room Room) {
	p.fit(room, 0)
	all := p.scanAll()
	close(p.scanned)
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.fit(room, 0)
		case e, more := <-p.queue:
			if !more || !all {
				return
			}
			err := p.append(room, e)
			p.waiting.Add(-int64(len(e.frame)))
			if err != nil {
				p.log.Warn("cannot keep a compressed form; it is made again when it is wanted", "err", err)
			}
		}
	}
}

// fit removes files, the oldest first, until there is room for so many bytes more, and says
// whether there is.
func (p *Packs) fit(room Room, more int64) bool {
	bytes, known := room()
	if !known {
		return false
	}
	over := p.bytes.Load() + more - bytes
	return over <= 0 || p.Drop(over) >= over
}

func (p *Packs) append(room Room, e entry) error {
	p.mu.Lock()
	_, there := p.records[e.digest]
	p.mu.Unlock()
	if there {
		return nil // kept twice at once, or before it was known that it is there
	}
	buf := make([]byte, headSize, headSize+len(e.frame))
	copy(buf, e.digest[:])
	binary.BigEndian.PutUint32(buf[digestSize:], uint32(e.size))
	binary.BigEndian.PutUint32(buf[digestSize+4:], uint32(len(e.frame)))
	buf = append(buf, e.frame...)
	sum := p.checksum(buf)
	binary.BigEndian.PutUint32(buf[digestSize+8:], sum)
	if !p.fit(room, int64(len(buf))) {
		return nil
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
	if k.dropped {
		return nil
	}
	p.records[e.digest] = record{k, k.size, uint32(e.size), uint32(len(e.frame)), sum}
	k.size += int64(len(buf))
	p.bytes.Add(int64(len(buf)))
	return nil
}

// checksum is that of a record, whatever stands in its place.
func (p *Packs) checksum(rec []byte) uint32 {
	sum := crc32.Update(0, p.table, rec[:digestSize+8])
	return crc32.Update(sum, p.table, rec[headSize:])
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
