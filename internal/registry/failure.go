package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/ipfs"
)

// Codes of errors (distribution specification, "Error Codes"; codeUnknown is what registries
// say of their own failures).
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeUnsupported     = "UNSUPPORTED"
	codeTooMany         = "TOOMANYREQUESTS"
	codeUnknown         = "UNKNOWN"
)

// A failure is an answer that says why there is none.
type failure struct {
	status  int
	code    string
	message string
}

func (f *failure) Error() string { return f.message }

func fail(status int, code, format string, args ...any) error {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

// unknown is the code of what is asked for and not there.
func (k kind) unknown() string {
	switch k {
	case kindManifest:
		return codeManifestUnknown
	case kindBlob:
		return codeBlobUnknown
	default:
		return codeNameUnknown
	}
}

// failed turns an error into an answer. Whom the node asked is for whoever runs it to know: that
// is logged.
func failed(ctx context.Context, k kind, err error) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, imagedir.ErrUnknown):
		return &failure{http.StatusNotFound, k.unknown(), err.Error()}
	case errors.Is(err, imagedir.ErrImage):
		return &failure{http.StatusNotFound, codeNameUnknown, err.Error()}
	case errors.Is(err, ipfs.ErrNotFound), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &failure{http.StatusNotFound, k.unknown(), "neither this node nor any peer that it is connected to gave it in time: " +
			"\"ipcs-snapshotter status\" shows the peers, and the daemon's log whom it asked"}
	default:
		return &failure{http.StatusInternalServerError, codeUnknown, "the daemon's log says what is wrong"}
	}
}

// write answers.
func (f *failure) write(w http.ResponseWriter) {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	if f.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	text, err := json.Marshal(map[string][]item{"errors": {{f.code, f.message}}})
	if err != nil {
		http.Error(w, f.message, f.status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_, _ = w.Write(text) // a client that is gone misses nothing
}
