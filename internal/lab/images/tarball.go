package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// A Tarball writes a layer's tar. Its methods return nothing: the first error is kept,
// makes the others do nothing, and comes from Close.
type Tarball struct {
	w   io.Writer
	tw  *tar.Writer
	err error
}

// NewTarball returns a Tarball that writes to w.
func NewTarball(w io.Writer) *Tarball { return &Tarball{w: w, tw: tar.NewWriter(w)} }

// Tar turns a function that fills a Tarball into what a Layer is made from.
func Tar(fill func(t *Tarball)) func(io.Writer) error {
	return func(w io.Writer) error {
		t := NewTarball(w)
		fill(t)
		return t.Close()
	}
}

// Close ends the tar.
func (t *Tarball) Close() error {
	if t.err != nil {
		return t.err
	}
	return t.tw.Close()
}

// Fail ends the Tarball with an error, unless it has one or err is nil.
func (t *Tarball) Fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// An Option changes the header of an entry.
type Option func(*tar.Header)

// Owner sets user and group.
func Owner(uid, gid int) Option {
	return func(h *tar.Header) { h.Uid, h.Gid = uid, gid }
}

// Mtime sets the time of modification.
func Mtime(sec, nsec int64) Option {
	return func(h *tar.Header) { h.ModTime = time.Unix(sec, nsec) }
}

// Xattr adds an extended attribute.
func Xattr(name, value string) Option {
	return func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
}

// Entry adds any entry.
func (t *Tarball) Entry(h tar.Header, content []byte, opts ...Option) {
	if t.err != nil {
		return
	}
	if h.ModTime.IsZero() {
		h.ModTime = created
	}
	h.Format = tar.FormatPAX
	for _, o := range opts {
		o(&h)
	}
	h.Size = int64(len(content))
	if t.err = t.tw.WriteHeader(&h); t.err != nil {
		t.err = fmt.Errorf("%q: %w", h.Name, t.err)
		return
	}
	_, t.err = t.tw.Write(content)
}

// Dir adds a directory.
func (t *Tarball) Dir(name string, mode int64, opts ...Option) {
	t.Entry(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil, opts...)
}

// File adds a regular file.
func (t *Tarball) File(name string, mode int64, content string, opts ...Option) {
	t.Entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, []byte(content), opts...)
}

// Symlink adds a symbolic link.
func (t *Tarball) Symlink(name, target string, opts ...Option) {
	t.Entry(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil, opts...)
}

// Link adds a hard link.
func (t *Tarball) Link(name, target string, opts ...Option) {
	t.Entry(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, nil, opts...)
}

// Node adds a device or fifo: typeflag is tar.TypeChar, tar.TypeBlock or tar.TypeFifo.
func (t *Tarball) Node(typeflag byte, name string, mode, major, minor int64, opts ...Option) {
	t.Entry(tar.Header{Typeflag: typeflag, Name: name, Mode: mode, Devmajor: major, Devminor: minor}, nil, opts...)
}

// Whiteout removes what a lower layer has.
func (t *Tarball) Whiteout(name string) {
	t.File(path.Join(path.Dir(name), ".wh."+path.Base(name)), 0, "")
}

// Opaque hides what lower layers have in a directory.
func (t *Tarball) Opaque(dir string) { t.File(path.Join(dir, ".wh..wh..opq"), 0, "") }

// Sparse adds a file of GNU tar's sparse format 1.0 in PAX, which package archive/tar
// reads and does not write: data at offset in a file of size bytes, and holes.
func (t *Tarball) Sparse(name string, size, offset int64, data string) {
	if t.err != nil {
		return
	}
	if t.err = t.tw.Flush(); t.err != nil {
		return
	}
	segments := fmt.Sprintf("2\n%d\n%d\n%d\n0\n", offset, len(data), size)
	body := pad(segments) + data
	records := paxRecord("GNU.sparse.major", "1") + paxRecord("GNU.sparse.minor", "0") +
		paxRecord("GNU.sparse.name", name) + paxRecord("GNU.sparse.realsize", fmt.Sprint(size))
	var b bytes.Buffer
	b.Write(rawHeader("PaxHeaders/sparse", 'x', int64(len(records))))
	b.WriteString(pad(records))
	b.Write(rawHeader("GNUSparseFile.0/sparse", '0', int64(len(body))))
	b.WriteString(pad(body))
	_, t.err = t.w.Write(b.Bytes())
}

// pad fills s up to a whole number of blocks.
func pad(s string) string { return s + strings.Repeat("\x00", (512-len(s)%512)%512) }

// paxRecord is "LENGTH KEY=VALUE\n", where LENGTH counts its own digits.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest)
	for n != len(fmt.Sprint(n))+len(rest) {
		n = len(fmt.Sprint(n)) + len(rest)
	}
	return fmt.Sprint(n) + rest
}

// rawHeader is a ustar header with nothing special in it.
func rawHeader(name string, typeflag byte, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00        ", size, created.Unix()))
	h[156] = typeflag
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}
