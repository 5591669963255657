package kubo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
)

// maxFiles bounds the files of one request.
const maxFiles = 1024

type statReply struct {
	Key  string
	Size int
}

// missing is the error of blocks that are not found, as clients know it.
func missing(c cid.Cid, err error) error {
	if errors.Is(err, ipfs.ErrNotFound) && !isNotFound(err) {
		return fmt.Errorf("%w: %s%s", err, notFoundMessage, c)
	}
	return err
}

func (h *handler) blockGet(w http.ResponseWriter, r *http.Request, q url.Values) error {
	src, c, err := h.block(r, q)
	if err != nil {
		return err
	}
	data, err := src.Get(r.Context(), c)
	if err != nil {
		return missing(c, err)
	}
	w.Header().Set("Content-Type", "application/vnd.ipld.raw")
	w.Header().Set("X-Stream-Output", "1")
	w.Header().Set("X-Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("%w: %w", errBegun, err)
	}
	return nil
}

// block returns the block that a command is about, and where to get it.
func (h *handler) block(r *http.Request, q url.Values) (dag.Store, cid.Cid, error) {
	src, err := h.source(q)
	if err != nil {
		return nil, cid.Undef, err
	}
	c, err := h.one(r, q)
	return src, c, err
}

func (h *handler) blockStat(w http.ResponseWriter, r *http.Request, q url.Values) error {
	src, c, err := h.block(r, q)
	if err != nil {
		return err
	}
	if s, ok := h.node.(interface {
		BlockSize(context.Context, cid.Cid) (int, error)
	}); ok {
		if size, err := s.BlockSize(r.Context(), c); err == nil {
			return reply(w, statReply{c.String(), size})
		}
	}
	data, err := src.Get(r.Context(), c)
	if err != nil {
		return missing(c, err)
	}
	return reply(w, statReply{c.String(), len(data)})
}

// files calls fn with each file of a multipart body.
func files(r *http.Request, fn func(io.Reader) error) error {
	parts, err := r.MultipartReader()
	if err != nil {
		return usage("the body must be multipart/form-data with files: %w", err)
	}
	for n := 0; ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return usage(`file argument "path" is required`)
		}
		if err != nil {
			return usage("read the body: %w", err)
		}
		if isDirectory(part) {
			continue
		}
		if n++; n > maxFiles {
			return usage("more than %d files", maxFiles)
		}
		if err := fn(part); err != nil {
			return err
		}
	}
}

func isDirectory(p *multipart.Part) bool {
	return p.Header.Get("Content-Type") == "application/x-directory"
}

// blockCodec returns the codec that block/put is asked for.
func blockCodec(q url.Values) (uint64, error) {
	if hash := q.Get("mhtype"); hash != "" && hash != "sha2-256" {
		return 0, usage("hash function %q: only sha2-256 is supported", hash)
	}
	if l := q.Get("mhlen"); l != "" && l != "-1" && l != "32" {
		return 0, usage("hash length %q: only 32 is supported", l)
	}
	if f := q.Get("format"); f != "" {
		return 0, usage("format %q: use cid-codec", f)
	}
	switch codec := q.Get("cid-codec"); codec {
	case "", "raw":
		return cid.Raw, nil
	case "dag-pb":
		return cid.DagProtobuf, nil
	default:
		return 0, usage("codec %q: only raw and dag-pb are supported", codec)
	}
}

func (h *handler) blockPut(w http.ResponseWriter, r *http.Request, q url.Values) error {
	defer drain(r)
	codec, err := blockCodec(q)
	if err != nil {
		return err
	}
	pin, err := option(q, "pin", false)
	if err != nil {
		return err
	}
	var stored []any
	err = files(r, func(file io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(file, ipfs.MaxBlock+1))
		if err != nil {
			return usage("read the body: %w", err)
		}
		b, err := ipfs.NewBlock(codec, data)
		if err != nil {
			return usageError{err}
		}
		if err := h.node.Put(r.Context(), b); err != nil {
			return err
		}
		if pin {
			if err := h.node.Pin(r.Context(), ipfs.Pin{Root: b.Cid}); err != nil {
				return err
			}
		}
		stored = append(stored, statReply{b.Cid.String(), len(data)})
		return nil
	})
	if err != nil {
		return err
	}
	return reply(w, stored...)
}

func (h *handler) dagImport(w http.ResponseWriter, r *http.Request, q url.Values) error {
	defer drain(r)
	pinRoots, err := option(q, "pin-roots", true)
	if err != nil {
		return err
	}
	wantStats, err := option(q, "stats", false)
	if err != nil {
		return err
	}
	var stats statsReply
	var roots []cid.Cid
	err = files(r, func(file io.Reader) error {
		more, err := importCar(r.Context(), h.node, file, &stats)
		roots = append(roots, more...)
		if len(roots) > maxArgs && pinRoots {
			return usage("more than %d roots to pin", maxArgs)
		}
		return err
	})
	if err != nil {
		return err
	}
	var values []any
	if pinRoots {
		for _, c := range roots {
			values = append(values, importReply{Root: h.pinRoot(r.Context(), c)})
		}
	}
	if wantStats {
		values = append(values, importReply{Stats: &stats})
	}
	return reply(w, values...)
}

// pinRoot pins a root of an import, of which all must be here; as in Kubo, failing that is told and no
// error.
func (h *handler) pinRoot(ctx context.Context, c cid.Cid) *rootReply {
	out := &rootReply{Cid: cidLink{c.String()}}
	if err := h.pin(ctx, localOnly{h.node}, ipfs.Pin{Root: c}); err != nil {
		out.PinErrorMsg = err.Error()
	}
	return out
}
