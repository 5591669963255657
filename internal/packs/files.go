package packs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// pack is one file.
type pack struct {
	number  uint64
	file    *os.File
	size    int64        // that counts; guarded by the lock of Packs
	dropped bool         // guarded by the lock of Packs
	users   sync.RWMutex // held to read while the file is read, and to write when it is closed
}

func (k *pack) read(buf []byte, off int64) error {
	k.users.RLock()
	defer k.users.RUnlock()
	_, err := k.file.ReadAt(buf, off)
	return err
}

// Remove removes all files of a directory that was given to Open, while it is not open.
func Remove(dir string) error {
	names, err := list(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for name := range names {
		errs = append(errs, os.Remove(filepath.Join(dir, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove compressed forms: %w", err)
	}
	return nil
}

// list returns the files of a directory that are packs, and their numbers.
func list(dir string) (map[string]uint64, error) {
	entries, err := os.ReadDir(dir)
	names := make(map[string]uint64)
	for _, e := range entries {
		digits, ours := strings.CutSuffix(e.Name(), suffix)
		if number, err := strconv.ParseUint(digits, 10, 64); ours && err == nil {
			names[e.Name()] = number
		}
	}
	return names, err
}

// openAll opens all files, and takes them for as large as they are. One that cannot be opened
// is done without.
func (p *Packs) openAll() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	names, err := list(p.dir)
	if err != nil {
		return err
	}
	for name, number := range names {
		p.next = max(p.next, number+1)
		path := filepath.Join(p.dir, name)
		k, err := openPack(path, number)
		if err != nil {
			p.log.Warn("removed compressed forms that cannot be opened", "err", errors.Join(err, os.Remove(path)))
			continue
		}
		p.packs = append(p.packs, k)
		p.bytes.Add(k.size)
	}
	slices.SortFunc(p.packs, func(a, b *pack) int { return cmp.Compare(a.number, b.number) })
	return nil
}

func openPack(path string, number uint64) (*pack, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &pack{number: number, file: f, size: info.Size()}, nil
}

// scanAll finds the records of the files that Open found. It says whether it came to its end
// before Close did.
func (p *Packs) scanAll() bool {
	p.mu.Lock()
	packs := slices.Clone(p.packs)
	p.mu.Unlock()
	for _, k := range packs {
		p.mu.Lock()
		closed := p.closed
		p.mu.Unlock()
		if closed {
			return false
		}
		if err := p.scan(k); err != nil {
			if _, there := p.drop(k); there { // and not dropped while it was read
				p.log.Warn("removed compressed forms that cannot be read", "file", k.file.Name(), "err", err)
			}
		}
	}
	return true
}

// scan finds the records of a file. What follows the last whole one is cut off.
func (p *Packs) scan(k *pack) error {
	var head [headSize]byte
	size, end := k.size, int64(0)
	for {
		err := k.read(head[:], end)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		r := record{
			pack: k, off: end,
			size:   binary.BigEndian.Uint32(head[digestSize:]),
			length: binary.BigEndian.Uint32(head[digestSize+4:]),
			sum:    binary.BigEndian.Uint32(head[digestSize+8:]),
		}
		next := end + headSize + int64(r.length)
		if err != nil || r.length == 0 || r.length > maxFrame || r.size > maxFrame || next > size {
			break
		}
		if !p.found(digest(head[:digestSize]), r) {
			return nil
		}
		end = next
	}
	if end < size {
		if err := k.file.Truncate(end); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !k.dropped {
		k.size = end
		p.bytes.Add(end - size)
	}
	return nil
}

// found adds a record, unless its file was dropped.
func (p *Packs) found(d digest, r record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.pack.dropped {
		p.records[d] = r
	}
	return !r.pack.dropped
}

// newest returns the file to append to.
func (p *Packs) newest() (*pack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.packs); n > 0 && p.packs[n-1].size < p.full {
		return p.packs[n-1], nil
	}
	number := p.next
	p.next++
	path := filepath.Join(p.dir, strconv.FormatUint(number, 10)+suffix)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	k := &pack{number: number, file: f}
	p.packs = append(p.packs, k)
	return k, nil
}

// drop removes a file, the oldest if k is nil, and says how many bytes it had, and whether it was
// there still.
func (p *Packs) drop(k *pack) (int64, bool) {
	p.mu.Lock()
	if k == nil && len(p.packs) > 0 {
		k = p.packs[0]
	}
	if k == nil || k.dropped || p.closed {
		p.mu.Unlock()
		return 0, false
	}
	k.dropped = true
	p.packs = slices.DeleteFunc(p.packs, func(of *pack) bool { return of == k })
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
