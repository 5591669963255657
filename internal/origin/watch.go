package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// A place that gives less than leastBytes in dripTime is given up: it would hold one of few requests.
const (
	leastBytes = 16 << 10
	dripTime   = 10 * time.Second
)

// errDrips says that a place was given up for that.
var errDrips = fmt.Errorf("less than %d bytes in %v: %w", leastBytes, dripTime, ErrAway)

// watched is what comes from a place, as long as it comes.
type watched struct {
	io.ReadCloser
	cause  func() error // why the request was ended
	cancel context.CancelCauseFunc
	timer  *time.Timer
	came   int
	counts *counts
	failed bool
}

// watch begins to read a range of a place. The time until the first byte is the place's own matter.
func (o *Origin) watch(ctx context.Context, p Place, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	body, err := p.Range(ctx, d, off, n)
	if err != nil {
		o.counts.failed.Add(1)
		cancel(nil)
		return nil, err
	}
	return &watched{ReadCloser: body, counts: &o.counts, cause: func() error { return context.Cause(ctx) }, cancel: cancel, timer: time.AfterFunc(dripTime, func() { cancel(errDrips) })}, nil
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.counts.bytes.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) && !w.failed {
		w.failed = true
		w.counts.failed.Add(1)
	}
	if w.came += n; w.came >= leastBytes {
		w.came = 0
		w.timer.Reset(dripTime)
	}
	if err != nil && errors.Is(w.cause(), errDrips) {
		err = errDrips
	}
	return n, err
}

// Close implements io.Closer.
func (w *watched) Close() error {
	w.timer.Stop()
	if !w.failed {
		w.failed = true // it is counted once
		w.counts.ok.Add(1)
	}
	w.cancel(nil)
	return w.ReadCloser.Close()
}
