package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/snapshotter"
)

// Where the daemon lists profiles, and gives and takes one.
const (
	profilesPath = "/ipcs/v1/profiles"
	profilePath  = "/ipcs/v1/profile"
)

// profileInfo is a profile in a list.
type profileInfo struct {
	Chain   digest.Digest `json:"chain"`           // chainID of the image's topmost ipcs layer
	Layer   digest.Digest `json:"layer,omitempty"` // digest of that layer, if a snapshot has it
	Files   int           `json:"files"`
	Written time.Time     `json:"written"`
}

func profileCommand(flags *daemonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "record, list, export and import what containers of an image read first",
		Long: `A profile lists the files that a container of an image reads first, and of large files
that were not here the parts that it reads. The daemon records it when an image is run here
for the first time, and the next time fetches these files at once; "profile record" does so
anew, until the container is ready.

An exported profile can be put into an image ("convert --profile FILE"), so that every host
begins with it.`,
		Example: `  ipcs-snapshotter profile record --port 8080 --output app.profile -- ctr run --snapshotter ipcs registry.example.com/app:1-ipcs app
  ipcs-snapshotter profile list
  convert --mediatype unixfs --profile app.profile registry.example.com/app:1 registry.example.com/app:1-ipcs`,
		Args: usageArgs(cobra.NoArgs),
	}
	cmd.AddCommand(profileRecordCommand(flags), profileListCommand(flags), profileExportCommand(flags), profileImportCommand(flags))
	return cmd
}

func profileListCommand(flags *daemonFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list the profiles that were recorded or imported here, the newest first",
		Example: `  ipcs-snapshotter profile list
  ipcs-snapshotter profile list --json | jq -r '.[0].chain'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := flags.ask(cmd, http.MethodGet, profilesPath, nil)
			if err != nil {
				return err
			}
			if asJSON {
				_, err = cmd.OutOrStdout().Write(body)
				return err
			}
			return printProfiles(cmd.OutOrStdout(), body)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func profileExportCommand(flags *daemonFlags) *cobra.Command {
	var output string
	var named imageFlags
	cmd := &cobra.Command{
		Use:   "export [IMAGE]",
		Short: "write a profile to a file",
		Long: `export writes the profile of IMAGE, or without IMAGE the newest.

` + imageHelp,
		Example: `  ipcs-snapshotter profile export --output app.profile registry.example.com/app:1-ipcs
  convert --mediatype unixfs --profile app.profile registry.example.com/app:1 registry.example.com/app:1-ipcs`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			image, err := named.chainOf(cmd.Context(), cfg, strings.Join(args, ""))
			if err != nil {
				return err
			}
			body, err := flags.ask(cmd, http.MethodGet, profilePath+"?image="+url.QueryEscape(image), nil)
			if err != nil {
				return err
			}
			if output != "" {
				return os.WriteFile(output, body, 0o644)
			}
			_, err = cmd.OutOrStdout().Write(body)
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default standard output)")
	named.register(cmd)
	return cmd
}

func profileImportCommand(flags *daemonFlags) *cobra.Command {
	var named imageFlags
	cmd := &cobra.Command{
		Use:   "import IMAGE FILE",
		Short: "use a profile for an image on this machine",
		Long: `import keeps a profile for an image, in place of one that is here.

IMAGE is a name that containerd has ("ctr image ls"), or the chainID of the image's topmost ipcs layer,
with all its digits: an image that is not here can be given one, too.`,
		Example: `  ipcs-snapshotter profile import registry.example.com/app:1-ipcs app.profile`,
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[1])
			if err != nil {
				return fmt.Errorf("read profile: %w", err)
			}
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			image, err := named.chainOf(cmd.Context(), cfg, args[0])
			if err != nil {
				return err
			}
			_, err = flags.ask(cmd, http.MethodPut, profilePath+"?image="+url.QueryEscape(image), b)
			return err
		},
	}
	named.register(cmd)
	return cmd
}

// ask asks the daemon that the flags name.
func (f *daemonFlags) ask(cmd *cobra.Command, method, target string, body []byte) ([]byte, error) {
	cfg, err := f.config(cmd.Flags())
	if err != nil {
		return nil, err
	}
	client := apiClient(cfg.apiSocket())
	client.Timeout = 10 * time.Second
	req, err := http.NewRequestWithContext(cmd.Context(), method, "http://ipcs"+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon at %s: %w", cfg.apiSocket(), err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("ask the daemon at %s: %w", cfg.apiSocket(), err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the daemon says: %s", bytes.TrimSpace(answer))
	}
	return answer, nil
}

func printProfiles(w io.Writer, body []byte) error {
	var all []profileInfo
	if err := json.Unmarshal(body, &all); err != nil {
		return fmt.Errorf("list of profiles: %w", err)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CHAINID\tTOPMOST LAYER\tFILES\tWRITTEN")
	for _, p := range all {
		top := p.Layer.String()
		if p.Layer == "" {
			top = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\n", p.Chain, top, p.Files, p.Written.Format(time.DateTime))
	}
	return tw.Flush()
}

// handleProfiles answers for the profiles of snaps.
func handleProfiles(mux *http.ServeMux, snaps *snapshotter.Snapshotter, log *slog.Logger) {
	answer := func(w http.ResponseWriter, body []byte, err error) {
		code := http.StatusInternalServerError
		switch {
		case err == nil:
			if _, err := w.Write(body); err != nil {
				log.Debug("an answer was not delivered", "error", err)
			}
			return
		case errdefs.IsNotFound(err):
			code = http.StatusNotFound
		case errdefs.IsInvalidArgument(err):
			code = http.StatusBadRequest
		}
		http.Error(w, err.Error(), code)
	}
	mux.HandleFunc("GET "+profilesPath, func(w http.ResponseWriter, r *http.Request) {
		all, err := snaps.Profiles(r.Context())
		list := make([]profileInfo, 0, len(all))
		for _, p := range all {
			list = append(list, profileInfo(p))
		}
		body, jerr := json.Marshal(list)
		answer(w, append(body, '\n'), errors.Join(err, jerr))
	})
	mux.HandleFunc("GET "+profilePath, func(w http.ResponseWriter, r *http.Request) {
		body, err := snaps.Profile(r.Context(), r.URL.Query().Get("image"))
		answer(w, body, err)
	})
	mux.HandleFunc("PUT "+profilePath, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, layer.MaxProfileBlock))
		if err != nil {
			answer(w, nil, fmt.Errorf("read profile: %w: %w", err, errdefs.ErrInvalidArgument))
			return
		}
		answer(w, nil, snaps.PutProfile(digest.Digest(r.URL.Query().Get("image")), body))
	})
}
