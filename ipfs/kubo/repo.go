package kubo

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"

	"github.com/ipfs/go-cid"
)

// A RepoStat says how much a node keeps.
type RepoStat struct {
	Bytes   int64  // that it takes
	Limit   int64  // of these; 0 for none
	Objects int64  // in how many pieces
	Path    string // where
	Version string // of its layout
}

type repoStater interface{ RepoStat() RepoStat }

type collector interface {
	CollectGarbage(ctx context.Context, removed func(cid.Cid)) error
}

// repoReply is RepoStat as Kubo tells it.
type repoReply struct {
	RepoSize   uint64
	StorageMax uint64 // math.MaxUint64 for no limit
	NumObjects uint64
	RepoPath   string
	Version    string
}

func repoStat(s repoStater) command {
	return func(w http.ResponseWriter, _ *http.Request, q url.Values) error {
		sizeOnly, err := option(q, "size-only", false)
		if err != nil {
			return err
		}
		stat := s.RepoStat()
		out := repoReply{RepoSize: uint64(stat.Bytes), StorageMax: uint64(stat.Limit)}
		if stat.Limit == 0 {
			out.StorageMax = math.MaxUint64
		}
		if !sizeOnly {
			out.NumObjects, out.RepoPath, out.Version = uint64(stat.Objects), stat.Path, stat.Version
		}
		return reply(w, out)
	}
}

// repoGC removes what nothing needs, and tells of each object.
func repoGC(c collector) command {
	return func(w http.ResponseWriter, r *http.Request, q url.Values) error {
		silent, err := option(q, "silent", false)
		if err != nil {
			return err
		}
		type removed struct{ Key cidLink }
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Chunked-Output", "1")
		enc := json.NewEncoder(w)
		begun := false
		err = c.CollectGarbage(r.Context(), func(c cid.Cid) {
			if !silent {
				begun = true
				// A client that has gone ends the request's context, and so what is going on.
				_ = enc.Encode(removed{cidLink{c.String()}})
			}
		})
		if err != nil && begun {
			err = fmt.Errorf("%w: %w", errBegun, err)
		}
		return err
	}
}
