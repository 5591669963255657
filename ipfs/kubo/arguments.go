package kubo

import (
	"bufio"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
)

// texts returns the arguments of a command: those of the query, and the lines of a body, where stock
// clients send what they read from their standard input, but for the first line.
func texts(r *http.Request, q url.Values) ([]string, error) {
	list := slices.Clone(q["arg"])
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "multipart/form-data" {
		defer drain(r)
		err := files(r, func(file io.Reader) error {
			lines := bufio.NewScanner(file)
			for lines.Scan() && len(list) <= maxArgs {
				if line := strings.TrimSpace(lines.Text()); line != "" {
					list = append(list, line)
				}
			}
			return lines.Err()
		})
		if err != nil {
			return nil, usage("read arguments from the body: %w", err)
		}
	}
	if len(list) > maxArgs {
		return nil, usage("more than %d arguments", maxArgs)
	}
	return list, nil
}

// cids returns the blocks that a command is about, given as paths: a CID, CID/a/b or /ipfs/CID/a/b.
func (h *handler) cids(r *http.Request, q url.Values) ([]cid.Cid, error) {
	list, err := texts(r, q)
	if err != nil {
		return nil, err
	}
	src, err := h.source(q)
	if err != nil {
		return nil, err
	}
	var out []cid.Cid
	err = dag.Read(r.Context(), src, func(ctx context.Context, reader *dag.Reader) error {
		for _, text := range list {
			c, err := resolve(ctx, reader, text)
			if err == nil {
				err = checked(c)
			}
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// one is cids where one is wanted.
func (h *handler) one(r *http.Request, q url.Values) (cid.Cid, error) {
	cids, err := h.cids(r, q)
	if err == nil && len(cids) != 1 {
		err = usage(`argument "cid": got %d, want one`, len(cids))
	}
	if err != nil {
		return cid.Undef, err
	}
	return cids[0], nil
}

func checked(c cid.Cid) error {
	if err := checkCid(c); err != nil {
		return usageError{err}
	}
	return nil
}

// resolve is Reader.Resolve, with the errors of commands.
func resolve(ctx context.Context, reader *dag.Reader, text string) (cid.Cid, error) {
	c, err := reader.Resolve(ctx, text)
	if errors.Is(err, dag.ErrPath) {
		return cid.Undef, usage("%q: %w", shorten(text), err)
	}
	return c, err
}

// shorten cuts what goes into a message.
func shorten(text string) string {
	if len(text) > maxName {
		return text[:maxName] + "…"
	}
	return text
}

// source returns where a command gets blocks: from this node alone if the caller says offline.
func (h *handler) source(q url.Values) (dag.Store, error) {
	offline, err := option(q, "offline", false)
	if err != nil {
		return nil, err
	}
	if offline {
		return localOnly{h.node}, nil
	}
	return h.node, nil
}

// localOnly is what of a node is on this machine.
type localOnly struct{ ipfs.Node }

func (l localOnly) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	ok, err := l.Has(ctx, c)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, missing(c, ipfs.ErrNotFound)
	}
	return l.Node.Get(ctx, c)
}

func (l localOnly) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := l.Get(ctx, c)
		if err == nil {
			err = fn(ipfs.Block{Cid: c, Data: data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// option returns a boolean option.
func option(q url.Values, name string, def bool) (bool, error) {
	s := q.Get(name)
	if s == "" {
		return def || q.Has(name), nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, usage("option %s: %w", name, err)
	}
	return b, nil
}

// number returns an option that is a number, and not negative.
func number(q url.Values, name string, def int64) (int64, error) {
	s := q.Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, usage("option %s: %w", name, err)
	}
	if n < 0 {
		return 0, usage("option %s: %d is negative", name, n)
	}
	return n, nil
}
