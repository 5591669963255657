package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/objects"
)

// checkPath is where the daemon checks its store. It answers with a line of JSON now and
// then, and the report in the last one.
const checkPath = "/ipcs/v1/check"

// checkLine is one line of the answer: one of these.
type checkLine struct {
	Progress *objects.CheckProgress `json:"progress,omitempty"`
	Report   *objects.CheckReport   `json:"report,omitempty"`
	Error    string                 `json:"error,omitempty"`
}

var errNotWhole = errors.New("the store is not whole")

func checkCommand(flags *daemonFlags) *cobra.Command {
	var asJSON, dryRun bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "hash all that is stored, and remove what is wrong",
		Long: `check reads every object and every block from the disk and compares it with its hash.
What is wrong is removed, and fetched again when it is needed; so are references that lead
nowhere and partial files that nobody writes. It says which pins have lost something:
that cannot be mended here, and exits with 1.

A daemon that runs does it while it serves. Without one the store is opened here.

A container that has bound a removed file goes on to read it until it is started again.`,
		Example: `  ipcs-snapshotter check
  ipcs-snapshotter check --dry-run --json | jq .damaged`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			progress := newProgress(cmd.ErrOrStderr(), "check", asJSON)
			report, err := checkStore(cmd.Context(), cfg, dryRun, func(p objects.CheckProgress) {
				progress.show(far{p.Bytes, p.TotalBytes, fmt.Sprintf("checked %d of %d objects", p.Objects, p.TotalObjects)})
			})
			progress.close()
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				err = printReport(cmd.OutOrStdout(), report)
			}
			if cfg.Node.Kubo != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), `This was what is kept here of Kubo's; "ipfs repo verify" checks Kubo's own repository.`)
			}
			if err == nil && !report.Mended() {
				err = errNotWhole
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as one JSON document, and no progress")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing")
	cmd.Flags().StringVar(&flags.given.Root, "root", defaultConfig().Root, "folder of the store, where no daemon runs")
	return cmd
}

// checkStore has the daemon check its store, or checks it here if none runs.
func checkStore(ctx context.Context, cfg config, dryRun bool, progress func(objects.CheckProgress)) (*objects.CheckReport, error) {
	report, err := checkByDaemon(ctx, cfg.apiSocket(), dryRun, progress)
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return report, err
	}
	dir := filepath.Join(cfg.Root, "repo")
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("no daemon answers at %s, and there is no store: %w; name the folder of either with --state or --root", cfg.apiSocket(), err)
	}
	store, err := objects.Open(dir, objects.Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return nil, err
	}
	report, err = store.Check(ctx, objects.CheckOptions{DryRun: dryRun, Progress: progress})
	return report, errors.Join(err, store.Close())
}

func checkByDaemon(ctx context.Context, socket string, dryRun bool, progress func(objects.CheckProgress)) (*objects.CheckReport, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ipcs"+checkPath+"?dry-run="+strconv.FormatBool(dryRun), nil)
	if err != nil {
		return nil, err
	}
	resp, err := apiClient(socket).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the daemon at %s answers %q: is it of an older version?", socket, resp.Status)
	}
	dec := json.NewDecoder(resp.Body)
	for {
		var line checkLine
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the daemon at %s stopped before the check was over", socket)
		} else if err != nil {
			return nil, fmt.Errorf("answer of the daemon: %w", err)
		}
		switch {
		case line.Progress != nil:
			progress(*line.Progress)
		case line.Error != "":
			return nil, errors.New(line.Error)
		case line.Report != nil:
			return line.Report, nil
		}
	}
}

// checkHandler checks the store, until ctx ends or nobody listens any more.
func checkHandler(ctx context.Context, store *objects.Store, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dryRun, err := strconv.ParseBool(r.URL.Query().Get("dry-run"))
		if err != nil {
			http.Error(w, "dry-run must be true or false", http.StatusBadRequest)
			return
		}
		rctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		w.Header().Set("Content-Type", "application/x-ndjson")
		out, flush := json.NewEncoder(w), http.NewResponseController(w)
		send := func(line checkLine) {
			if err := errors.Join(out.Encode(line), flush.Flush()); err != nil {
				log.Debug("nobody listens to the check of the store any more", "error", err)
				cancel()
			}
		}
		report, err := store.Check(rctx, objects.CheckOptions{DryRun: dryRun, Progress: func(p objects.CheckProgress) {
			send(checkLine{Progress: &p})
		}})
		if err != nil {
			send(checkLine{Error: err.Error()})
			return
		}
		if report.Wrong() {
			log.Warn("checked the store, and found something wrong", "damaged", len(report.Damaged), "unreadable", len(report.Unreadable), "lost", len(report.Lost))
		}
		send(checkLine{Report: report})
	})
}
