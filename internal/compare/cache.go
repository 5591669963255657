package compare

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/layer"
)

// A Cache keeps scans of ordinary layers, by the digests of their blobs. Several processes may use it at once.
//
//	DIR/ALG/HEX   magic, a line of JSON (header), the index file, measures of leaves, sums of the blob's chunks, and the sha2-256 of all that
type Cache struct{ dir string }

const (
	cacheMagic = "ipcs compare 1\n"
	// tempPattern is what files in the making are called.
	tempPattern = ".new-*"
	// maxHeader is more than a header takes, and maxCached than a scan of the largest layer that convert takes.
	maxHeader = 4 << 10
	maxCached = 1 << 30
)

// errCached says that a file is no scan, or not one of this layer. It is made again.
var errCached = errors.New("no scan of this layer")

// A header says how long the parts are.
type header struct {
	scan
	Index  int `json:"index"`
	Leaves int `json:"leaves"`
	Chunks int `json:"chunks"`
}

// NewCache returns the cache in a folder, which need not be there.
func NewCache(dir string) *Cache { return &Cache{dir} }

func (c *Cache) path(d digest.Digest) string {
	return filepath.Join(c.dir, d.Algorithm().String(), d.Encoded())
}

// load returns the scan of a layer, or nil if there is none that is good.
func (c *Cache) load(seen convert.LookLayer) *scan {
	path := c.path(seen.Desc.Digest)
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxCached {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	s, err := decodeScan(data)
	if err != nil || s.Blob != seen.Desc.Digest || s.DiffID != seen.DiffID || s.BlobSize != seen.Desc.Size {
		return nil
	}
	now := time.Now() // who removes what was not used for long sees what was
	_ = os.Chtimes(path, now, now)
	return s
}

// usable says whether scans can be kept.
func (c *Cache) usable() error {
	dir := filepath.Join(c.dir, digest.SHA256.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// staleAfter is when a file in the making is taken for one that nobody makes any more.
const staleAfter = time.Hour

// Prune removes what was not used for longest until there are no more bytes than that. What is no scan it leaves alone: the folder may be anybody's.
func (c *Cache) Prune(most int64) error {
	type file struct {
		path string
		info fs.FileInfo
	}
	var files []file
	var bytes int64
	var errs []error
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		dir := filepath.Join(c.dir, algorithm.String())
		entries, err := os.ReadDir(dir)
		errs = append(errs, ignoreGone(err))
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() || !c.isOurs(path, algorithm, info) {
				continue
			}
			files, bytes = append(files, file{path, info}), bytes+info.Size()
		}
	}
	slices.SortFunc(files, func(a, b file) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, f := range files {
		if bytes <= most {
			break
		}
		bytes -= f.info.Size()
		errs = append(errs, ignoreGone(os.Remove(f.path)))
	}
	return errors.Join(errs...)
}

// isOurs says whether a file is a scan, or one that was in the making long ago.
func (c *Cache) isOurs(path string, algorithm digest.Algorithm, info fs.FileInfo) bool {
	name := info.Name()
	if ok, err := filepath.Match(tempPattern, name); err == nil && ok {
		return time.Since(info.ModTime()) > staleAfter
	}
	if digest.NewDigestFromEncoded(algorithm, name).Validate() != nil {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, len(cacheMagic))
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == cacheMagic
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// save keeps a scan. What is written is there as a whole, or not at all.
func (c *Cache) save(s *scan) error {
	data, err := encodeScan(s)
	if err != nil {
		return err
	}
	path := c.path(s.Blob)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), tempPattern)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep what is known of layer %s: %w", s.Blob, err), os.Remove(tmp.Name()))
	}
	return nil
}

func encodeScan(s *scan) ([]byte, error) {
	text, err := json.Marshal(header{*s, len(s.file), len(s.leaves), len(s.chunks)})
	if err != nil {
		return nil, err
	}
	data := bytes.Join([][]byte{[]byte(cacheMagic), text, []byte("\n"), s.file, s.leaves, s.chunks}, nil)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), nil
}

// decodeScan reads a scan. The error is errCached, wrapped.
func decodeScan(data []byte) (*scan, error) {
	if len(data) < sumSize || [sumSize]byte(data[len(data)-sumSize:]) != sha256.Sum256(data[:len(data)-sumSize]) {
		return nil, fmt.Errorf("%w: it is damaged", errCached)
	}
	return parseScan(data[:len(data)-sumSize])
}

// parseScan reads what is before the sum.
func parseScan(data []byte) (*scan, error) {
	h, rest, err := parseHeader(data)
	if err != nil {
		return nil, err
	}
	if h.Index < 0 || h.Leaves < 0 || h.Chunks < 0 || int64(h.Index)+int64(h.Leaves)+int64(h.Chunks) != int64(len(rest)) {
		return nil, fmt.Errorf("%w: its parts are of other sizes", errCached)
	}
	if want := (h.BlobSize + chunkSize - 1) / chunkSize * sumSize; h.BlobSize < 0 || h.BlobSize > 1<<50 || want != int64(h.Chunks) || h.Tar < 0 || h.IndexSize != int64(h.Index) {
		return nil, fmt.Errorf("%w: its sizes are not those of its parts", errCached)
	}
	s := h.scan
	s.read = true
	if s.index, err = layer.ReadIndex(rest[:h.Index]); err != nil {
		return nil, fmt.Errorf("%w: %w", errCached, err)
	}
	s.leaves, s.chunks = rest[h.Index:h.Index+h.Leaves], rest[h.Index+h.Leaves:]
	return &s, checkLeaves(&s)
}

// parseHeader reads the header, and returns what follows it.
func parseHeader(data []byte) (h header, rest []byte, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(cacheMagic))
	line, rest, found := bytes.Cut(rest, []byte("\n"))
	if !ok || !found || len(line) >= maxHeader {
		return h, nil, fmt.Errorf("%w: it has no header", errCached)
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return h, nil, fmt.Errorf("%w: %w", errCached, err)
	}
	return h, rest, nil
}

// checkLeaves says whether the measures are those of the leaves of the index.
func checkLeaves(s *scan) error {
	r := leafReader{s.leaves}
	err := s.index.Each(func(_, _ int, e *layer.Entry) error {
		if !isFile(e) || e.Size == 0 {
			return nil
		}
		return eachLeaf(e, func(_ sum, size int64) error {
			_, err := r.next(size)
			return err
		})
	})
	if err == nil && len(r.rest) > 0 {
		err = errLeaves
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errCached, err)
	}
	return nil
}
