package kubo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// speaks is the version of Kubo whose RPC this is, marked as ours.
	speaks = "0.43.0-ipcs"
	agent  = "ipcs"
	prefix = "/api/v0/"
	// notFoundMessage is how clients know that a block is not there; a CID follows.
	notFoundMessage  = "ipld: could not find "
	notPinnedMessage = "not pinned"
	maxArgs          = 1024
	maxName          = 1024
)

// Codes of errors, as Kubo has them.
const (
	codeNormal = 0
	codeClient = 1
)

// An Identity says who the node behind a handler is.
type Identity interface {
	ID() string
	Addrs() []string
}

// errorReply is Kubo's error object.
type errorReply struct {
	Message string
	Code    int
	Type    string
}

// usageError is an error of the caller's.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// handler answers the commands.
type handler struct {
	node     ipfs.Node
	identity Identity
	log      *slog.Logger
	commands map[string]func(w http.ResponseWriter, r *http.Request, q url.Values) error
}

// NewHandler returns the handler of /api/v0 for node. If node has a method
// BlockSize(context.Context, cid.Cid) (int, error), block/stat need not read blocks;
// if id has a method Connected() []string, swarm/peers lists its multiaddrs, each
// with /p2p/ID.
func NewHandler(node ipfs.Node, id Identity, logger *slog.Logger) http.Handler {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	h := &handler{node: node, identity: id, log: logger}
	h.commands = map[string]func(http.ResponseWriter, *http.Request, url.Values) error{
		"version":     h.version,
		"id":          h.id,
		"swarm/peers": h.swarmPeers,
		"block/get":   h.blockGet,
		"block/stat":  h.blockStat,
		"block/put":   h.blockPut,
		manyCommand:   h.blocksGet,
		"dag/import":  h.dagImport,
		"pin/add":     h.pinAdd,
		"pin/rm":      h.pinRm,
		"pin/ls":      h.pinLs,
	}
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", "OPTIONS, POST")
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "OPTIONS, POST")
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
		return
	case fromBrowser(r):
		http.Error(w, "403 - Forbidden", http.StatusForbidden)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, prefix)
	command := h.commands[strings.TrimSuffix(name, "/")]
	if !ok || command == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil {
		err = h.run(w, r, q, command)
	} else {
		err = usage("query: %w", err)
	}
	if err != nil {
		h.log.Debug("IPFS API request failed", "command", name, "err", err)
		fail(w, err)
	}
}

// run applies the option timeout, which every command has.
func (h *handler) run(w http.ResponseWriter, r *http.Request, q url.Values, command func(http.ResponseWriter, *http.Request, url.Values) error) error {
	s := q.Get("timeout")
	if s == "" {
		return command(w, r, q)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return usage("timeout: %w", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	defer cancel()
	return command(w, r.WithContext(ctx), q)
}

// fromBrowser says whether a web page may be behind the request. A browser names the
// page in every POST.
func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" ||
		r.Header.Get("Sec-Fetch-Site") != "" || strings.HasPrefix(r.UserAgent(), "Mozilla/")
}

// fail sends an error. Once the body has begun, the best that can be done is to break
// off, so that the client does not take half an answer for a whole one.
func fail(w http.ResponseWriter, err error) {
	if errors.Is(err, errBegun) {
		panic(http.ErrAbortHandler)
	}
	status, code := http.StatusInternalServerError, codeNormal
	var bad usageError
	if errors.As(err, &bad) {
		status, code = http.StatusBadRequest, codeClient
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(errorReply{Message: err.Error(), Code: code, Type: "error"})
}

// errBegun marks errors that come after a part of the answer.
var errBegun = errors.New("answer begun")

// reply sends values as JSON, one a line. It ends the request's body first: net/http
// would break off a client that is still sending.
func reply(w http.ResponseWriter, values ...any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Chunked-Output", "1")
	enc := json.NewEncoder(w)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("%w: %w", errBegun, err)
		}
	}
	return nil
}

// args returns the CIDs a command is about: bare, or as /ipfs/CID.
func args(q url.Values) ([]cid.Cid, error) {
	if len(q["arg"]) > maxArgs {
		return nil, usage("more than %d arguments", maxArgs)
	}
	var out []cid.Cid
	for _, arg := range q["arg"] {
		s := strings.TrimPrefix(strings.TrimPrefix(arg, "/ipfs/"), "ipfs://")
		c, err := cid.Decode(s)
		if err != nil {
			return nil, usage("invalid path %q: %w", arg, err)
		}
		if err := checkCid(c); err != nil {
			return nil, usageError{err}
		}
		out = append(out, c)
	}
	return out, nil
}

func arg(q url.Values) (cid.Cid, error) {
	cids, err := args(q)
	if err == nil && len(cids) != 1 {
		err = usage(`argument "cid": got %d, want one`, len(cids))
	}
	if err != nil {
		return cid.Undef, err
	}
	return cids[0], nil
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

func (h *handler) version(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	return reply(w, map[string]string{
		"Version": speaks, "Commit": "", "Repo": "",
		"System": runtime.GOARCH + "/" + runtime.GOOS, "Golang": runtime.Version(),
	})
}

func (h *handler) id(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	addrs := h.identity.Addrs()
	if addrs == nil {
		addrs = []string{}
	}
	return reply(w, map[string]any{
		"ID": h.identity.ID(), "PublicKey": "", "Addresses": addrs, "AgentVersion": agent, "Protocols": []string{},
	})
}

func (h *handler) swarmPeers(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	type connection struct{ Addr, Peer string }
	peers := []connection{}
	if c, ok := h.identity.(interface{ Connected() []string }); ok {
		for _, a := range c.Connected() {
			if addr, id, ok := strings.Cut(a, "/p2p/"); ok {
				peers = append(peers, connection{addr, id})
			}
		}
	}
	return reply(w, map[string]any{"Peers": peers})
}

// drain reads what is left of a body, so that the client can read our answer.
func drain(r *http.Request) { _, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxDrain)) }

const maxDrain = 1 << 20
