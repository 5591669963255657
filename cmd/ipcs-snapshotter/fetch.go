package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/snapshotter"
)

// fetchPath is where the daemon fetches all of an image. It answers with a line of JSON now
// and then; the last one has an error, or says done.
const fetchPath = "/ipcs/v1/fetch"

// fetchLine is one line of the answer.
type fetchLine struct {
	snapshotter.FetchProgress
	Done  bool   `json:",omitempty"`
	Error string `json:",omitempty"`
}

// fetched is what "fetch --json" prints.
type fetched struct {
	Image        string  `json:"image"` // chainID of the topmost ipcs layer
	Files        int     `json:"files"`
	Bytes        int64   `json:"bytes"`
	FetchedFiles int     `json:"fetched_files"` // of these: the others were here
	FetchedBytes int64   `json:"fetched_bytes"`
	Seconds      float64 `json:"seconds"`
}

func fetchCommand(flags *daemonFlags) *cobra.Command {
	var asJSON bool
	var named imageFlags
	cmd := &cobra.Command{
		Use:   "fetch IMAGE",
		Short: "fetch all files of an image now",
		Long: `fetch returns when all files of an image that was pulled are on this machine: its containers then
depend on no other node, and read at native speed from the first byte. What containers read meanwhile goes
first; fetch.fill_rate does not hold it back.

Interrupted, it can be started again, and goes on. With store.limit, what is fetched can be evicted
like anything else.

` + imageHelp,
		Example: `  ctr image pull --snapshotter ipcs registry.example.com/app:1-ipcs
  ipcs-snapshotter fetch registry.example.com/app:1-ipcs

  # before a node takes pods
  ipcs-snapshotter fetch --namespace k8s.io registry.example.com/app:1-ipcs`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			image, err := named.chainOf(cmd.Context(), cfg, args[0])
			if err != nil {
				return err
			}
			start, shown := time.Now(), newProgress(cmd.ErrOrStderr(), "fetch", asJSON)
			p, err := fetchByDaemon(cmd.Context(), cfg.apiSocket(), image, func(p snapshotter.FetchProgress) {
				here := p.Here + p.Fetched
				shown.show(far{p.HereBytes + p.FetchedBytes, p.AllBytes, fmt.Sprintf("%d of %d files are here", here, p.Files)})
			})
			shown.close()
			if err != nil {
				return err
			}
			took := time.Since(start)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(fetched{p.Image.String(), p.Files, p.AllBytes, p.Fetched, p.FetchedBytes, took.Seconds()})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "all %d files of the image are here, %s; fetched %d, %s, in %s\n",
				p.Files, humanBytes(p.AllBytes), p.Fetched, humanBytes(p.FetchedBytes), took.Round(time.Millisecond))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON document, and no progress")
	named.register(cmd)
	return cmd
}

// fetchByDaemon has the daemon fetch an image, and returns how far it was at the end.
func fetchByDaemon(ctx context.Context, socket, image string, progress func(snapshotter.FetchProgress)) (p snapshotter.FetchProgress, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ipcs"+fetchPath+"?image="+url.QueryEscape(image), nil)
	if err != nil {
		return p, err
	}
	resp, err := apiClient(socket).Do(req)
	if err != nil {
		return p, fmt.Errorf("ask the daemon at %s: %w", socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return p, errors.Join(fmt.Errorf("the daemon at %s answers %q: %s", socket, resp.Status, strings.TrimSpace(string(text))), err)
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var line fetchLine
		if err := dec.Decode(&line); err != nil {
			return p, fmt.Errorf("the daemon at %s stopped before all was fetched: %w", socket, err)
		}
		switch {
		case line.Error != "":
			return p, errors.New(line.Error)
		case line.Done:
			return p, nil
		}
		p = line.FetchProgress
		progress(p)
	}
}

// fetchHandler fetches images, each until ctx ends or nobody listens any more.
func fetchHandler(ctx context.Context, snaps *snapshotter.Snapshotter, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		image := r.URL.Query().Get("image")
		if image == "" {
			http.Error(w, "image must name one", http.StatusBadRequest)
			return
		}
		rctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		w.Header().Set("Content-Type", "application/x-ndjson")
		out, flush := json.NewEncoder(w), http.NewResponseController(w)
		send := func(line fetchLine) {
			if err := errors.Join(out.Encode(line), flush.Flush()); err != nil {
				log.Debug("nobody waits for an image to be fetched any more", "error", err)
				cancel()
			}
		}
		err := snaps.FetchImage(rctx, image, func(p snapshotter.FetchProgress) { send(fetchLine{FetchProgress: p}) })
		if err != nil {
			send(fetchLine{Error: err.Error()})
			return
		}
		send(fetchLine{Done: true})
	})
}
