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
	"strings"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// speaks is the version of Kubo whose RPC this is, marked as ours.
	speaks = "0.43.0-ipcs"
	prefix = "/api/v0/"
	// notFoundMessage is how clients know that a block is not there; a CID follows.
	notFoundMessage  = "ipld: could not find "
	notPinnedMessage = "not pinned"
	maxArgs          = 1024
	maxName          = 1024
	// streamError is the trailer in which Kubo says why it broke off.
	streamError = "X-Stream-Error"
	// cliAgent begins what clients call themselves that look at that trailer.
	cliAgent = "go-ipfs-cmds/"
)

// Codes of errors, as Kubo has them.
const (
	codeNormal = 0
	codeClient = 1
)

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
	commands map[string]command
}

// A command answers a request, whose query is q.
type command func(w http.ResponseWriter, r *http.Request, q url.Values) error

// NewHandler returns the handler of /api/v0 for node. Commands that not every node can answer are
// there if node or id has a method for them:
//
//   - BlockSize(context.Context, cid.Cid) (int, error) of node: block/stat need not read blocks
//   - RepoStat() RepoStat of node: repo/stat
//   - CollectGarbage(ctx context.Context, removed func(cid.Cid)) error of node: repo/gc
//   - Connected() []string of id: swarm/peers lists these multiaddrs, each with /p2p/ID
//   - Connect(ctx context.Context, addr string) error of id: swarm/connect
func NewHandler(node ipfs.Node, id Identity, logger *slog.Logger) http.Handler {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	h := &handler{node: node, identity: id, log: logger}
	h.commands = map[string]command{
		"version":     h.version,
		"id":          h.id,
		"swarm/peers": h.swarmPeers,
		"block/get":   h.blockGet,
		"block/stat":  h.blockStat,
		"block/put":   h.blockPut,
		manyCommand:   h.blocksGet,
		"cat":         h.cat,
		"ls":          h.ls,
		"get":         h.get,
		"dag/import":  h.dagImport,
		"dag/export":  h.dagExport,
		"pin/add":     h.pinAdd,
		"pin/rm":      h.pinRm,
		"pin/ls":      h.pinLs,
	}
	if c, ok := id.(connector); ok {
		h.commands["swarm/connect"] = swarmConnect(c)
	}
	if s, ok := node.(repoStater); ok {
		h.commands["repo/stat"] = repoStat(s)
	}
	if c, ok := node.(collector); ok {
		h.commands["repo/gc"] = repoGC(c)
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
		fail(w, r, err)
	}
}

// run applies the option timeout, which every command has.
func (h *handler) run(w http.ResponseWriter, r *http.Request, q url.Values, command command) error {
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

// fail sends an error. Once the body has begun, a client that looks at trailers is told there; for
// others the best that can be done is to break off, so that they do not take half an answer for a
// whole one.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errBegun) {
		if !strings.HasPrefix(r.UserAgent(), cliAgent) {
			panic(http.ErrAbortHandler)
		}
		text := strings.TrimPrefix(err.Error(), errBegun.Error()+": ")
		w.Header().Set(http.TrailerPrefix+streamError, strings.Join(strings.Fields(text), " "))
		return
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

func (h *handler) version(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	return reply(w, map[string]string{
		"Version": speaks, "Commit": "", "Repo": "",
		"System": runtime.GOARCH + "/" + runtime.GOOS, "Golang": runtime.Version(),
	})
}

// drain reads what is left of a body, so that the client can read our answer.
func drain(r *http.Request) { _, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxDrain)) }

const maxDrain = 1 << 20
