package kubo

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
)

// maxListed bounds the entries that ls sorts: with the option stream it tells any number.
const maxListed = 100_000

// read calls fn with a reader, and with what the arguments lead to.
func (h *handler) read(r *http.Request, q url.Values, fn func(ctx context.Context, reader *dag.Reader, names []string, cids []cid.Cid) error) error {
	names, err := texts(r, q)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usage(`argument "ipfs-path" is required`)
	}
	src, err := h.source(q)
	if err != nil {
		return err
	}
	return dag.Read(r.Context(), src, func(ctx context.Context, reader *dag.Reader) error {
		cids := make([]cid.Cid, len(names))
		for i, name := range names {
			if cids[i], err = resolve(ctx, reader, name); err != nil {
				return err
			}
		}
		return fn(ctx, reader, names, cids)
	})
}

// A piece is what cat tells of a file.
type piece struct {
	cid            cid.Cid
	offset, length int64
}

// cat sends files, one after the other, or a range of all of them together.
func (h *handler) cat(w http.ResponseWriter, r *http.Request, q url.Values) error {
	offset, err := number(q, "offset", 0)
	if err != nil {
		return err
	}
	length, err := number(q, "length", math.MaxInt64)
	if err != nil {
		return err
	}
	return h.read(r, q, func(ctx context.Context, reader *dag.Reader, _ []string, cids []cid.Cid) error {
		pieces, total, err := pieces(ctx, reader, cids, offset, length)
		if err != nil {
			return err
		}
		s := stream{w: w, contentType: "text/plain", length: total}
		return s.send(func(out io.Writer) error {
			for _, p := range pieces {
				f, err := reader.File(ctx, p.cid)
				if err == nil {
					err = f.WriteTo(out, p.offset, p.length)
				}
				if err != nil {
					return fmt.Errorf("cat %s: %w", p.cid, err)
				}
			}
			return nil
		})
	})
}

// pieces says what of each file a range of all of them takes in, and how many bytes that is.
func pieces(ctx context.Context, reader *dag.Reader, cids []cid.Cid, offset, length int64) (list []piece, total int64, err error) {
	for _, c := range cids {
		f, err := reader.File(ctx, c)
		if err != nil {
			return nil, 0, err
		}
		if offset > f.Size {
			offset -= f.Size
			continue
		}
		p := piece{c, offset, min(f.Size-offset, length)}
		if total > math.MaxInt64-p.length {
			return nil, 0, usage("these files are larger than %d bytes together", int64(math.MaxInt64))
		}
		offset, length, total = 0, length-p.length, total+p.length
		list = append(list, p)
	}
	return list, total, nil
}

// lsLink is an entry as Kubo tells it.
type lsLink struct {
	Name, Hash string
	Size       uint64
	Type       dag.Kind
	Target     string
	Mode       os.FileMode
	ModTime    time.Time
}

type lsObject struct {
	Hash  string // the argument
	Links []lsLink
}

type lsReply struct{ Objects []lsObject }

// ls lists directories: each sorted and all in one answer, or with the option stream as the
// entries come.
func (h *handler) ls(w http.ResponseWriter, r *http.Request, q url.Values) error {
	look, err := option(q, "resolve-type", true)
	if err != nil {
		return err
	}
	size, err := option(q, "size", true)
	if err != nil {
		return err
	}
	streamed, err := option(q, "stream", false)
	if err != nil {
		return err
	}
	return h.read(r, q, func(ctx context.Context, reader *dag.Reader, names []string, cids []cid.Cid) error {
		if streamed {
			return lsStream(ctx, w, reader, names, cids, look || size)
		}
		var out lsReply
		room := maxListed
		for i, c := range cids {
			object := lsObject{Hash: names[i], Links: []lsLink{}}
			for e, err := range reader.Entries(ctx, c, look || size) {
				if err != nil {
					return err
				}
				if len(object.Links) == room {
					return usage("there are more than %d entries: list them with the option stream", maxListed)
				}
				object.Links = append(object.Links, link(e))
			}
			slices.SortFunc(object.Links, func(a, b lsLink) int { return cmp.Compare(a.Name, b.Name) })
			room -= len(object.Links)
			out.Objects = append(out.Objects, object)
		}
		return reply(w, out)
	})
}

func lsStream(ctx context.Context, w http.ResponseWriter, reader *dag.Reader, names []string, cids []cid.Cid, look bool) error {
	s := stream{w: w, contentType: "application/json", length: -1}
	w.Header().Set("X-Chunked-Output", "1")
	return s.send(func(out io.Writer) error {
		enc := json.NewEncoder(out)
		for i, c := range cids {
			for e, err := range reader.Entries(ctx, c, look) {
				if err == nil {
					err = enc.Encode(lsReply{[]lsObject{{names[i], []lsLink{link(e)}}}})
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func link(e dag.Entry) lsLink {
	return lsLink{Name: e.Name, Hash: e.Cid.String(), Size: e.Size, Type: e.Kind, Target: e.Target, Mode: e.Mode, ModTime: e.Time}
}

// get sends a file or a directory with all below it as a tar, or a file alone, compressed.
func (h *handler) get(w http.ResponseWriter, r *http.Request, q url.Values) error {
	archive, err := option(q, "archive", false)
	if err != nil {
		return err
	}
	compress, err := option(q, "compress", false)
	if err != nil {
		return err
	}
	level, err := number(q, "compression-level", 6)
	if err != nil {
		return err
	}
	if level < gzip.BestSpeed || level > gzip.BestCompression {
		return usage("option compression-level: %d is not between 1 and 9", level)
	}
	return h.read(r, q, func(ctx context.Context, reader *dag.Reader, names []string, cids []cid.Cid) error {
		if len(cids) != 1 {
			return usage(`argument "ipfs-path": got %d, want one`, len(cids))
		}
		c, name := cids[0], path.Base(names[0])
		if !compress {
			s := stream{w: w, contentType: "application/x-tar", length: -1}
			return s.send(func(out io.Writer) error { return reader.WriteTar(ctx, out, c, name) })
		}
		s := stream{w: w, contentType: "application/gzip", length: -1}
		return s.send(func(out io.Writer) error {
			zip, err := gzip.NewWriterLevel(out, int(level))
			if err != nil {
				return err
			}
			if archive {
				err = reader.WriteTar(ctx, zip, c, name)
			} else {
				err = writeFile(ctx, reader, zip, c)
			}
			if err != nil {
				return err
			}
			return zip.Close()
		})
	})
}

func writeFile(ctx context.Context, reader *dag.Reader, w io.Writer, c cid.Cid) error {
	f, err := reader.File(ctx, c)
	if err != nil {
		return err
	}
	return f.WriteTo(w, 0, f.Size)
}

// dagExport sends a DAG as a CARv1, each block once, in the order of a walk in depth.
func (h *handler) dagExport(w http.ResponseWriter, r *http.Request, q url.Values) error {
	if partial, err := option(q, "local-only", false); err != nil || partial {
		return usage("option local-only: a part of a DAG is not exported; leave it out, or say offline to ask no peers")
	}
	src, root, err := h.block(r, q)
	if err != nil {
		return err
	}
	s := stream{w: w, contentType: "application/vnd.ipld.car", length: -1}
	return s.send(func(out io.Writer) error {
		if err := writeCarHeader(out, root); err != nil {
			return err
		}
		err := dag.Walk(r.Context(), src, root, func(b ipfs.Block) error {
			return writeSection(out, b.Cid.Bytes(), b.Data)
		})
		if err != nil {
			return fmt.Errorf("export %s: %w", root, err)
		}
		return nil
	})
}
