package dag

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"time"

	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// windowSize is how many entries of a directory are looked at together.
const windowSize = 32

var (
	// ErrNotUnixFS says that a block is no node of UnixFS.
	ErrNotUnixFS = errors.New("not UnixFS")
	// ErrIsDirectory says that what was to be read as a file is a directory.
	ErrIsDirectory = errors.New("it is a directory")
	// ErrNotFile says that what was to be read as a file is a symbolic link, or what else UnixFS has.
	ErrNotFile = errors.New("it is no regular file")
	// ErrSize says that a file has not as many bytes as its root says.
	ErrSize = errors.New("the file's size is not what its root says")
)

// A File is one that is being read.
type File struct {
	Size int64 // as its root says
	r    uio.DagReader
}

// File opens a file. The error may be ErrIsDirectory, ErrNotFile or ErrNotUnixFS, wrapped.
func (r *Reader) File(ctx context.Context, c cid.Cid) (*File, error) {
	n, err := r.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	reader, err := uio.NewDagReader(ctx, n, r.serv)
	switch {
	case errors.Is(err, uio.ErrIsDir):
		return nil, fmt.Errorf("%s: %w", c, ErrIsDirectory)
	case errors.Is(err, uio.ErrCantReadSymlinks):
		return nil, fmt.Errorf("%s: %w", c, ErrNotFile)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", c, ErrNotUnixFS, err)
	case reader.Size() > math.MaxInt64:
		return nil, fmt.Errorf("%s: %w: %d bytes", c, ErrSize, reader.Size())
	}
	return &File{Size: int64(reader.Size()), r: reader}, nil
}

// WriteTo writes length bytes from offset on, both within Size. The error is ErrSize, wrapped, if the file
// ends before.
func (f *File) WriteTo(w io.Writer, offset, length int64) error {
	if _, err := f.r.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("go to byte %d: %w", offset, err)
	}
	n, err := io.Copy(w, io.LimitReader(f.r, length))
	if err == nil && n < length {
		err = fmt.Errorf("%w: it ends at byte %d of %d", ErrSize, offset+n, f.Size)
	}
	return err
}

// A Kind is what an entry of a directory is, as UnixFS numbers it (Data.DataType).
type Kind int32

// The kinds; Unknown is of what was not looked at, or is no UnixFS.
const (
	Unknown   Kind = 0
	Directory Kind = 1
	Regular   Kind = 2
	Symlink   Kind = 4
)

// An Entry is one of a directory.
type Entry struct {
	Name   string
	Cid    cid.Cid
	Size   uint64 // of a file's content, as its root says; of a symbolic link's target; of anything else 0
	Kind   Kind
	Target string // of a symbolic link
	Mode   os.FileMode
	Time   time.Time
}

// Entries yields the entries of a directory, as they come: of a sharded one in no order. If look
// says so, it looks at each to say what it is; else it tells only files of one leaf. For a
// file, the entries are the pieces that it is made of. The error is the last that is yielded.
func (r *Reader) Entries(ctx context.Context, c cid.Cid, look bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		n, err := r.Get(ctx, c)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		// The walk of a sharded directory goes on until its context ends and its results are taken.
		ctx, cancel := context.WithCancel(ctx)
		links := r.links(ctx, n)
		defer func() {
			cancel()
			for range links {
			}
		}()
		var window []*ipld.Link
		for result := range links {
			if result.Err != nil {
				yield(Entry{}, fmt.Errorf("list %s: %w", c, result.Err))
				return
			}
			if window = append(window, result.Link); len(window) < windowSize {
				continue
			}
			if !r.yieldWindow(ctx, window, look, yield) {
				return
			}
			window = window[:0]
		}
		if err := ctx.Err(); err != nil {
			yield(Entry{}, fmt.Errorf("list %s: %w", c, err))
			return
		}
		r.yieldWindow(ctx, window, look, yield)
	}
}

// links returns the links of a directory by name, or those of any other node as they are.
func (r *Reader) links(ctx context.Context, n ipld.Node) <-chan unixfs.LinkResult {
	if dir, err := uio.NewDirectoryFromNode(r.serv, n); err == nil {
		return dir.EnumLinksAsync(ctx)
	}
	out := make(chan unixfs.LinkResult, len(n.Links()))
	defer close(out)
	for _, l := range n.Links() {
		out <- unixfs.LinkResult{Link: l}
	}
	return out
}

func (r *Reader) yieldWindow(ctx context.Context, window []*ipld.Link, look bool, yield func(Entry, error) bool) bool {
	nodes := map[cid.Cid]ipld.Node{}
	if look {
		var wanted []cid.Cid
		for _, l := range window {
			if l.Cid.Prefix().Codec == cid.DagProtobuf {
				wanted = append(wanted, l.Cid)
			}
		}
		for option := range r.GetMany(ctx, wanted) {
			if option.Err != nil {
				yield(Entry{}, option.Err)
				return false
			}
			nodes[option.Node.Cid()] = option.Node
		}
	}
	for _, l := range window {
		if !yield(entry(l, nodes[l.Cid]), nil) {
			return false
		}
	}
	return true
}

// entry says what a link and, if it is there, its node say.
func entry(l *ipld.Link, n ipld.Node) Entry {
	e := Entry{Name: l.Name, Cid: l.Cid}
	if l.Cid.Prefix().Codec == cid.Raw {
		e.Kind, e.Size = Regular, l.Size
		return e
	}
	proto, ok := n.(*merkledag.ProtoNode)
	if !ok {
		return e
	}
	data, err := unixfs.FSNodeFromBytes(proto.Data())
	if err != nil {
		return e
	}
	e.Mode, e.Time = data.Mode(), data.ModTime()
	switch data.Type() {
	case unixfs.TFile, unixfs.TRaw:
		e.Kind, e.Size = Regular, data.FileSize()
	case unixfs.TDirectory, unixfs.THAMTShard, unixfs.TMetadata:
		e.Kind = Directory
	case unixfs.TSymlink:
		e.Kind, e.Target, e.Size = Symlink, string(data.Data()), uint64(len(data.Data()))
	}
	return e
}

// WriteTar writes a file or a directory, with all below it, as a tar in which it has this name.
// Names that would lead out of there are errors.
func (r *Reader) WriteTar(ctx context.Context, w io.Writer, c cid.Cid, name string) error {
	n, err := r.Get(ctx, c)
	if err != nil {
		return err
	}
	node, err := unixfile.NewUnixfsFile(ctx, r.serv, n)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", c, ErrNotUnixFS, err)
	}
	out, err := files.NewTarWriter(w)
	if err != nil {
		return err
	}
	if err := out.WriteFile(node, name); err != nil {
		return fmt.Errorf("write %s as a tar: %w", c, err)
	}
	return out.Close()
}
