package bench_test

import (
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// smallest are the options of the smallest measurement there is.
func smallest(t *testing.T, name string) bench.Options {
	t.Helper()
	labtest.Build(t)
	o := labtest.Options(t, name, 0) // has the tools made
	return bench.Options{
		Cache: labtest.Cache(t), Bin: o.Bin, Results: t.TempDir(), Lab: name,
		Quick: true, Only: []string{"cold-start/debian"}, Commit: "test", Log: t.Output(),
	}
}

// TestMeasure measures a cold start, and reads the report.
func TestMeasure(t *testing.T) {
	opts := smallest(t, "measure")
	if err := bench.Measure(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, opts)
	reports, err := result.Load(opts.Results)
	if err != nil || len(reports) != 1 {
		t.Fatalf("%d reports, %v", len(reports), err)
	}
	r := reports[0]
	if r.Scenario != "cold-start" || r.Base != "overlayfs" || !r.Quick || r.Versions["containerd"] == "" || r.Machine.Cores < 1 {
		t.Errorf("the report's head: %+v", r)
	}
	for _, m := range r.Missing {
		if m.Failed {
			t.Errorf("failed: %+v", m)
		}
	}
	ready := map[string]result.Figure{}
	for _, f := range r.Figures {
		if f.Metric == "ready" {
			ready[f.System] = f
		}
		if f.Median <= 0 && f.Metric != "cpu" && f.Metric != "daemon-cpu" { // which is counted in hundredths of a second
			t.Errorf("%s: median %v", f.Key(), f.Median)
		}
	}
	if n := len(ready["overlayfs"].Runs); n == 0 || ready["overlayfs"].Ratio != nil {
		t.Errorf("overlayfs, which ratios are to: %d runs, ratio %v", n, ready["overlayfs"].Ratio)
	}
	if n := len(ready["ipcs"].Runs); n != len(ready["overlayfs"].Runs) || ready["ipcs"].Ratio == nil {
		t.Errorf("ipcs: %d runs, ratio %v", n, ready["ipcs"].Ratio)
	}
}
