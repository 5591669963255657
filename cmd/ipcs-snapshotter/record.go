package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/snapshotter"
)

// readyWindow is how long a container may take to become ready, unless --window says otherwise.
const readyWindow = 10 * time.Minute

// recordFlags say what to record, and when it is enough.
type recordFlags struct {
	image   string
	port    uint16
	pattern string
	window  time.Duration
	output  string
	command []string
	named   imageFlags

	log *regexp.Regexp // pattern
}

// recordHelp is followed by imageHelp.
const recordHelp = `record waits for the next container that starts, of IMAGE or of any ipcs image, and records
the files that it opens, until the first of these:

  --port N        a process of the container listens on TCP port N
  --log REGEXP    COMMAND has written a line that matches
  --window TIME   so long after its first file (default: profile.window, or with --port or
                  --log ten minutes, and then it is an error)
  a signal        SIGINT (Ctrl-C) or SIGTERM to this command
  the container's end, which with --port or --log is an error

What was recorded takes the place of the image's profile here, if there is one; with --output
it is also written to a file, for "convert --profile" or "profile import". After an error
nothing is changed.

COMMAND is run when all is ready for the container that it is to start; when the recording has
ended, COMMAND is sent SIGTERM and waited for. Without it, start the container elsewhere.

`

func profileRecordCommand(flags *daemonFlags) *cobra.Command {
	var rec recordFlags
	cmd := &cobra.Command{
		Use:   "record [IMAGE] [-- COMMAND...]",
		Short: "record what the next container of an image reads until it is ready",
		Long:  recordHelp + imageHelp,
		Example: `  # until the server listens
  ipcs-snapshotter profile record --port 5432 --output pg.profile -- \
      ctr run --rm --snapshotter ipcs registry.example.com/postgres:ipcs pg

  # until it says that it is ready
  ipcs-snapshotter profile record --log 'ready to accept connections' -- \
      ctr run --rm --snapshotter ipcs registry.example.com/postgres:ipcs pg

  # a container that is started by others, until Ctrl-C
  ipcs-snapshotter profile record --window 1h --namespace k8s.io registry.example.com/app:1-ipcs`,
		Args: func(cmd *cobra.Command, args []string) error {
			before := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				before, rec.command = args[:dash], args[dash:]
			}
			rec.image = strings.Join(before, "")
			return usageArgs(cobra.MaximumNArgs(1))(cmd, before)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			if err := rec.complete(cfg); err != nil {
				return err
			}
			if rec.image, err = rec.named.chainOf(cmd.Context(), cfg, rec.image); err != nil {
				return err
			}
			return record(cmd, flags, cfg, &rec)
		},
	}
	rec.named.register(cmd)
	cmd.Flags().Uint16Var(&rec.port, "port", 0, "until a process of the container listens on this TCP `port`")
	cmd.Flags().StringVar(&rec.pattern, "log", "", "until COMMAND has written a line that matches this `regexp`")
	cmd.Flags().DurationVar(&rec.window, "window", 0, "no longer than this `time` after the first file (default: see above)")
	cmd.Flags().StringVarP(&rec.output, "output", "o", "", "`file` to write the profile to, too")
	return cmd
}

// complete fills in what was not said, and refuses what makes no sense.
func (f *recordFlags) complete(cfg config) (err error) {
	switch {
	case f.port != 0 && f.pattern != "":
		return fmt.Errorf("%w: --port or --log, not both; see --help", errUsage)
	case f.pattern != "" && len(f.command) == 0:
		return fmt.Errorf("%w: --log needs a COMMAND that writes the log, after --; see --help", errUsage)
	case f.window < 0:
		return fmt.Errorf("%w: --window must not be negative", errUsage)
	}
	if f.pattern != "" {
		if f.log, err = regexp.Compile(f.pattern); err != nil {
			return fmt.Errorf("%w: --log: %w", errUsage, err)
		}
	}
	for _, window := range []time.Duration{time.Duration(cfg.Profile.Window), time.Duration(defaultConfig().Profile.Window)} {
		if f.window == 0 && !f.conditional() {
			f.window = window
		}
	}
	if f.window == 0 {
		f.window = readyWindow
	}
	return nil
}

// conditional says whether there is something that the container has to do.
func (f *recordFlags) conditional() bool { return f.port != 0 || f.log != nil }

// check says why what ended a recording is an error, if it is.
func (f *recordFlags) check(r *recordedAnswer) error {
	if !f.conditional() {
		return nil
	}
	until := fmt.Sprintf("listened on port %d", f.port)
	if f.log != nil {
		until = fmt.Sprintf("wrote a line that matches %q", f.pattern)
	}
	switch r.End {
	case snapshotter.EndWindow:
		err := fmt.Errorf("nothing %s within %s: nothing is kept; give it more time with --window", until, f.window)
		if r.Problem != "" {
			err = fmt.Errorf("%w (%s)", err, r.Problem)
		}
		return err
	case snapshotter.EndGone:
		return fmt.Errorf("the container was removed before anything %s: nothing is kept", until)
	default:
		return nil
	}
}

// record records and keeps the profile. A signal ends the recording, and is no error.
func record(cmd *cobra.Command, flags *daemonFlags, cfg config, f *recordFlags) error {
	say := func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	ctx := context.WithoutCancel(cmd.Context())
	r, err := runRecording(cmd.Context(), cfg.apiSocket(), f, say, cmd.OutOrStdout(), cmd.ErrOrStderr())
	if err == nil && cmd.Context().Err() == nil {
		err = f.check(r)
	}
	if err != nil {
		return err
	}
	cmd.SetContext(ctx) // the signal that has ended the recording does not end what follows
	if _, err := flags.ask(cmd, http.MethodPut, profilePath+"?image="+url.QueryEscape(r.Image.String()), r.Profile); err != nil {
		return err
	}
	if f.output != "" {
		if err := os.WriteFile(f.output, r.Profile, 0o644); err != nil {
			return fmt.Errorf("write the profile, which this host has kept: %w", err)
		}
	}
	say("recorded %d files, or parts of large ones, of image %s", r.Files, r.Image)
	return nil
}

// runRecording has the daemon record while the command runs, until either says that it is enough,
// or ctx ends.
func runRecording(ctx context.Context, socket string, f *recordFlags, say func(string, ...any), stdout, stderr io.Writer) (*recordedAnswer, error) {
	rctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stream, err := startRecording(rctx, socket, f)
	if err != nil {
		return nil, err
	}
	defer stream.close()
	defer context.AfterFunc(ctx, stream.enough)()
	command := newRecordedCommand(f, stream.enough, cancel, stdout, stderr)
	defer command.stop()
	for {
		var line recordLine
		if err := stream.lines.Decode(&line); err != nil {
			if cause := context.Cause(rctx); cause != nil {
				return nil, cause
			}
			return nil, fmt.Errorf("the daemon at %s stopped before the recording was over: %w", socket, err)
		}
		switch {
		case line.Waiting:
			say("waiting for a container to start")
			if err := command.start(rctx, ctx); err != nil {
				return nil, err
			}
		case line.Begun != nil:
			say("recording container %s of image %s", line.Begun.Container, line.Begun.Image)
		case line.Error != "":
			return nil, errors.New(line.Error)
		case line.Recorded != nil:
			if line.Recorded.End == snapshotter.EndGone {
				err = command.ended() // may have failed, and is about to say so
			}
			return line.Recorded, err
		}
	}
}

// recordStream is a recording as the daemon's client has it.
type recordStream struct {
	lines *json.Decoder
	body  *io.PipeWriter // its end says that it is enough
	resp  *http.Response
}

func startRecording(ctx context.Context, socket string, f *recordFlags) (*recordStream, error) {
	query := url.Values{"image": {f.image}, "window": {f.window.String()}}
	if f.port != 0 {
		query.Set("port", strconv.Itoa(int(f.port)))
	}
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ipcs"+recordPath+"?"+query.Encode(), r)
	if err != nil {
		return nil, err
	}
	resp, err := apiClient(socket).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon at %s: %w", socket, err)
	}
	s := &recordStream{lines: json.NewDecoder(resp.Body), body: w, resp: resp}
	if resp.StatusCode != http.StatusOK {
		defer s.close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, errors.Join(fmt.Errorf("the daemon at %s answers %q: %s", socket, resp.Status, strings.TrimSpace(string(text))), err)
	}
	return s, nil
}

// enough ends the recording; what there is of it is the answer.
func (s *recordStream) enough() { _ = s.body.Close() } // a pipe's never fails

func (s *recordStream) close() {
	s.enough()
	_ = s.resp.Body.Close() // all that is wanted of it was read
}
