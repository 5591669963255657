package bench_test

import (
	"errors"
	"os"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestMeasureInUse finds that another run is told of at once, and by no report.
func TestMeasureInUse(t *testing.T) {
	opts := smallest(t, "inuse")
	labtest.Open(t, opts.Lab, 0)
	if err := bench.Measure(t.Context(), opts); !errors.Is(err, lab.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if left, err := os.ReadDir(opts.Results); err != nil || len(left) != 0 {
		t.Errorf("a report of nothing: %v, %v", left, err)
	}
}
