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
	"strconv"
	"strings"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/listening"
	"github.com/hinshun/ipcs/snapshotter"
)

// recordPath is where the daemon records the next container. The request's body says nothing
// but, by its end, that it is enough; the answer is lines of JSON.
const recordPath = "/ipcs/v1/profile/record"

// portInterval is how often it is looked whether a container listens.
const portInterval = 100 * time.Millisecond

// endPort is beside the ends that the snapshotter knows: the container listens on the port.
const endPort snapshotter.RecordEnd = "port"

// recordLine is one line of the answer: one of these.
type recordLine struct {
	Waiting  bool            `json:"waiting,omitempty"`
	Begun    *recordBegun    `json:"begun,omitempty"`
	Recorded *recordedAnswer `json:"recorded,omitempty"`
	Error    string          `json:"error,omitempty"`
}

type recordBegun struct {
	Container string        `json:"container"`
	Image     digest.Digest `json:"image"` // chainID
}

type recordedAnswer struct {
	Image   digest.Digest         `json:"image"`
	End     snapshotter.RecordEnd `json:"end"`
	Files   int                   `json:"files"`
	Profile []byte                `json:"profile"`
	// Problem is why it was not found out whether the container listens, if so.
	Problem string `json:"problem,omitempty"`
}

// profileRecorder is as much of the snapshotter as recording needs.
type profileRecorder interface {
	RecordProfile(context.Context, snapshotter.RecordOrder) (*snapshotter.Recorded, error)
}

// recordHandler records, until ctx ends or nobody listens any more.
func recordHandler(ctx context.Context, snaps profileRecorder, tasks tasksapi.TasksClient, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		order, port, err := recordOrder(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		rctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		answer := newRecordAnswer(w, log, cancel)
		rec := newRecordUntil(port, tasks)
		defer rec.group.Wait()
		defer cancel()
		defer answer.stopReading()
		rec.group.Go(func() {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				cancel() // the client is gone
				return
			}
			rec.enough(snapshotter.EndEnough)
		})
		order.Enough = rec.done
		order.Waiting = func() { answer.send(recordLine{Waiting: true}) }
		order.Begun = func(key string, chain digest.Digest) {
			answer.send(recordLine{Begun: &recordBegun{Container: key, Image: chain}})
			if port != 0 {
				rec.await(rctx, key)
			}
		}
		done, err := snaps.RecordProfile(rctx, order)
		if err != nil {
			answer.send(recordLine{Error: err.Error()})
			return
		}
		answer.send(recordLine{Recorded: rec.result(done)})
	})
}

// recordOrder reads what is asked for.
func recordOrder(query url.Values) (order snapshotter.RecordOrder, port uint16, err error) {
	order.Image = query.Get("image")
	if order.Window, err = time.ParseDuration(query.Get("window")); err != nil || order.Window < 0 {
		return order, 0, fmt.Errorf("window must be a time as 30s, not %q", query.Get("window"))
	}
	if text := query.Get("port"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return order, 0, fmt.Errorf("port must be from 1 to 65535, not %q", text)
		}
		port = uint16(n)
	}
	return order, port, nil
}

// recordAnswer writes lines to a client that may still be sending.
type recordAnswer struct {
	out    *json.Encoder
	ctl    *http.ResponseController
	log    *slog.Logger
	cancel func() // nobody listens any more
}

func newRecordAnswer(w http.ResponseWriter, log *slog.Logger, cancel func()) *recordAnswer {
	w.Header().Set("Content-Type", "application/x-ndjson")
	a := &recordAnswer{out: json.NewEncoder(w), ctl: http.NewResponseController(w), log: log, cancel: cancel}
	if err := a.ctl.EnableFullDuplex(); err != nil {
		log.Warn("cannot answer while a request comes", "err", err)
	}
	return a
}

// stopReading has the request's body end, if it has not.
func (a *recordAnswer) stopReading() {
	if err := a.ctl.SetReadDeadline(time.Unix(1, 0)); err != nil {
		a.log.Warn("cannot end a request", "err", err)
	}
}

func (a *recordAnswer) send(line recordLine) {
	if err := errors.Join(a.out.Encode(line), a.ctl.Flush()); err != nil {
		a.log.Debug("nobody listens to a recording any more", "err", err)
		a.cancel()
	}
}

// recordUntil finds out when it is enough.
type recordUntil struct {
	port  uint16
	tasks tasksapi.TasksClient
	done  chan struct{}
	group sync.WaitGroup
	// before ends the last await. One goroutine calls that.
	before context.CancelFunc

	mu      sync.Mutex
	why     snapshotter.RecordEnd // once done is closed
	problem error                 // the last that kept it from being found out
}

func newRecordUntil(port uint16, tasks tasksapi.TasksClient) *recordUntil {
	return &recordUntil{port: port, tasks: tasks, done: make(chan struct{})}
}

func (u *recordUntil) enough(why snapshotter.RecordEnd) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.why == "" {
		u.why = why
		close(u.done)
	}
}

// result puts together what was recorded and why it ended.
func (u *recordUntil) result(r *snapshotter.Recorded) *recordedAnswer {
	u.mu.Lock()
	defer u.mu.Unlock()
	answer := &recordedAnswer{Image: r.Chain, End: r.End, Files: r.Files, Profile: r.Profile}
	if r.End == snapshotter.EndEnough {
		answer.End = u.why
	}
	if u.problem != nil {
		answer.Problem = u.problem.Error()
	}
	return answer
}

// await looks whether the container on a snapshot listens on the port, until ctx ends, and no
// longer at one before it, which is gone.
func (u *recordUntil) await(ctx context.Context, key string) {
	ctx, cancel := context.WithCancel(ctx)
	if u.before != nil {
		u.before()
	}
	u.before = cancel
	u.group.Go(func() {
		defer cancel()
		ticker := time.NewTicker(portInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-u.done:
				return
			case <-ticker.C:
			}
			ready, err := u.listens(ctx, key)
			u.mu.Lock()
			u.problem = err
			u.mu.Unlock()
			if ready {
				u.enough(endPort)
				return
			}
		}
	})
}

// listens says whether a process of the container on a snapshot listens on the port. containerd
// names snapshots "namespace/number/key", and its clients choose the container's ID as key.
func (u *recordUntil) listens(ctx context.Context, key string) (bool, error) {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) != 3 {
		return false, fmt.Errorf("snapshot %q is not of containerd's", key)
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, parts[0]), readyTimeout)
	defer cancel()
	list, err := u.tasks.ListPids(ctx, &tasksapi.ListPidsRequest{ContainerID: parts[2]})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return false, nil // it is not started yet, or has ended
	}
	if err != nil {
		return false, fmt.Errorf("ask containerd for the processes of container %s: %w; see that containerd.address is its socket", parts[2], err)
	}
	var pids []int
	for _, p := range list.Processes {
		pids = append(pids, int(p.Pid))
	}
	return listening.On(u.port, pids...)
}
