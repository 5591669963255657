package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/hinshun/ipcs/snapshotter"
)

// fakeRecorder records a container that opens one file, and ends when it is told to.
type fakeRecorder struct {
	waiting chan struct{} // closed when the order has come to wait
	end     chan snapshotter.RecordEnd
	ended   chan error // of the context, if that ended first
}

func (f *fakeRecorder) RecordProfile(ctx context.Context, o snapshotter.RecordOrder) (*snapshotter.Recorded, error) {
	o.Waiting()
	o.Begun("a-namespace/7/a-container", "sha256:00")
	close(f.waiting)
	r := &snapshotter.Recorded{Chain: "sha256:00", End: snapshotter.EndEnough, Files: 1, Profile: []byte("profile of " + o.Image)}
	select {
	case <-o.Enough:
	case r.End = <-f.end:
	case <-ctx.Done():
		f.ended <- ctx.Err()
		return nil, ctx.Err()
	}
	return r, nil
}

// fakeTasks is containerd with a container that has this test as its process.
type fakeTasks struct {
	tasksapi.TasksClient
	err error
}

func (f fakeTasks) ListPids(_ context.Context, r *tasksapi.ListPidsRequest, _ ...grpc.CallOption) (*tasksapi.ListPidsResponse, error) {
	if r.ContainerID != "a-container" {
		return nil, errors.New("another container: " + r.ContainerID)
	}
	return &tasksapi.ListPidsResponse{Processes: []*taskapi.ProcessInfo{{Pid: uint32(os.Getpid())}}}, f.err
}

// serveRecords serves a recorder on a socket until ctx ends.
func serveRecords(t *testing.T, ctx context.Context, tasks tasksapi.TasksClient) (*fakeRecorder, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRecorder{make(chan struct{}), make(chan snapshotter.RecordEnd, 1), make(chan error, 1)}
	mux := http.NewServeMux()
	mux.Handle("POST "+recordPath, recordHandler(ctx, f, tasks, slog.New(slog.DiscardHandler)))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return f, socket
}

func quiet(string, ...any) {}

// TestRecordUntilSignal ends a recording as a signal does, and gets what there is of it.
func TestRecordUntilSignal(t *testing.T) {
	f, socket := serveRecords(t, t.Context(), fakeTasks{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-f.waiting
		cancel()
	}()
	r, err := runRecording(ctx, socket, &recordFlags{image: "abc"}, quiet, io.Discard, io.Discard)
	if err != nil || r.End != snapshotter.EndEnough || string(r.Profile) != "profile of abc" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestRecordUntilPort ends when a process of the container listens, not before, and says what has kept
// it from finding out.
func TestRecordUntilPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_, socket := serveRecords(t, t.Context(), fakeTasks{})
	r, err := runRecording(t.Context(), socket, &recordFlags{port: port}, quiet, io.Discard, io.Discard)
	if err != nil || r.End != endPort {
		t.Errorf("%+v, %v", r, err)
	}
	for err, want := range map[error]string{grpcstatus.Error(codes.NotFound, "no task yet"): "", grpcstatus.Error(codes.Unavailable, "not there"): "containerd.address"} {
		f, socket := serveRecords(t, t.Context(), fakeTasks{err: err})
		go func() {
			time.Sleep(3 * portInterval) // it is looked at some times
			f.end <- snapshotter.EndWindow
		}()
		flags := &recordFlags{port: port, window: time.Minute}
		r, err := runRecording(t.Context(), socket, flags, quiet, io.Discard, io.Discard)
		if err != nil || r.End != snapshotter.EndWindow {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := flags.check(r); err == nil || !strings.Contains(err.Error(), "within 1m0s") || !strings.Contains(err.Error(), want) || want == "" && r.Problem != "" {
			t.Errorf("%v (%q)", err, r.Problem)
		}
	}
}

// TestRecordNobodyListens finds that a client that is killed, and a daemon that stops, end the recording
// with nothing.
func TestRecordNobodyListens(t *testing.T) {
	f, socket := serveRecords(t, t.Context(), fakeTasks{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := startRecording(ctx, socket, &recordFlags{})
	if err != nil {
		t.Fatal(err)
	}
	<-f.waiting
	cancel() // as the kernel does with the connection of a killed process
	<-f.ended
	stream.close()

	ctx, cancel = context.WithCancel(t.Context())
	f, socket = serveRecords(t, ctx, fakeTasks{})
	go func() {
		<-f.waiting
		cancel()
	}()
	if r, err := runRecording(t.Context(), socket, &recordFlags{}, quiet, io.Discard, io.Discard); err == nil {
		t.Errorf("the daemon has stopped: %+v", r)
	}
}

// TestRecordCommand runs commands whose output is looked at and passed on, and that are told to
// end.
func TestRecordCommand(t *testing.T) {
	const long = 3 * maxLogLine
	for name, c := range map[string]struct {
		script, pattern string
		out, err        string
	}{
		"stdout":         {"echo not yet; echo it is ready; exec sleep 1e6", "^it is ready$", "not yet\nit is ready\n", ""},
		"stderr":         {"echo it is ready >&2; exec sleep 1e6", "ready", "it is ready\n", ""},
		"in two parts":   {"printf 'it is '; sleep 0.1; echo ready; exec sleep 1e6", "it is ready", "it is ready\n", ""},
		"long line":      {fmt.Sprintf(`head -c %d /dev/zero | tr '\0' x; echo; echo ready; exec sleep 1e6`, long), "^ready$", strings.Repeat("x", long) + "\nready\n", ""},
		"no match":       {"echo not yet", "ready", "", "no line of it matched"},
		"failure":        {"exit 4", "", "", "exit status 4"},
		"does not exist": {"", "", "", "start COMMAND"},
	} {
		t.Run(name, func(t *testing.T) {
			_, socket := serveRecords(t, t.Context(), fakeTasks{})
			flags := &recordFlags{pattern: c.pattern, window: time.Minute, command: []string{"sh", "-c", c.script}}
			if c.script == "" {
				flags.command = []string{"/nonexistent"}
			}
			if err := flags.complete(defaultConfig()); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			_, err := runRecording(t.Context(), socket, flags, quiet, &stdout, &stderr)
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || c.err == "" && err != nil {
				t.Errorf("error = %v, want one with %q", err, c.err)
			}
			if out := stdout.String() + stderr.String(); c.out != "" && out != c.out {
				t.Errorf("%d bytes were passed on, want %d: %.80q", len(out), len(c.out), out)
			}
		})
	}
}

// TestRecordUsage refuses what makes no sense, with a way out.
func TestRecordUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"both":       {[]string{"--port", "1", "--log", "x", "--", "true"}, "not both"},
		"no command": {[]string{"--log", "x"}, "needs a COMMAND"},
		"expression": {[]string{"--log", "(", "--", "true"}, "missing closing"},
		"window":     {[]string{"--window", "-1s"}, "must not be negative"},
		"two images": {[]string{"a", "b"}, "at most 1"},
		"port":       {[]string{"--port", "65536"}, "out of range"},
		"no daemon":  {[]string{"--state", "/nonexistent"}, "ask the daemon at /nonexistent/api.sock"},
	} {
		cmd := rootCommand()
		cmd.SetArgs(append([]string{"profile", "record"}, c.args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, errUsage) != (name != "no daemon") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var flags recordFlags
	if err := flags.complete(config{}); err != nil || flags.window != 30*time.Second {
		t.Errorf("window %s, %v", flags.window, err)
	}
	flags = recordFlags{port: 1}
	if err := flags.complete(defaultConfig()); err != nil || flags.window != readyWindow {
		t.Errorf("window with a port %s, %v", flags.window, err)
	}
	gone := &recordedAnswer{Image: digest.FromString(""), End: snapshotter.EndGone}
	if err := flags.check(gone); err == nil || !strings.Contains(err.Error(), "removed before") {
		t.Errorf("gone before it listened: %v", err)
	}
	if err := (&recordFlags{}).check(gone); err != nil {
		t.Errorf("gone, which is an end: %v", err)
	}
}
