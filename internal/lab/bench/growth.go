package bench

import (
	"context"
	"fmt"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// metricPerFile is a file's part of a daemon's memory.
var metricPerFile = result.Metric{Name: "per-file", Unit: "B", Better: result.Lower}

// metricPeakFile is its part of the most that the daemon held.
var metricPeakFile = result.Metric{Name: "peak-per-file", Unit: "B", Better: result.Lower}

// nothing is a command that ends at once.
const nothing = "true"

// growthLayers is about images of many layers.
func growthLayers() Scenario {
	s := Scenario{
		Name:  "growth-layers",
		Title: "Growth: layers",
		About: "Images of 10, 50 and 100 layers that hold the same 10,000 files: from the start of `ctr image pull` to the " +
			"end of `true` in a container, on a new host with a dropped page cache, at 1 Gbit/s. Metrics as in the cold start.",
		Systems: []string{"overlayfs", "erofs", "ipcs", "stargz"},
		Measure: measureCold,
	}
	for _, n := range []int{10, 50, 100} {
		s.Cases = append(s.Cases, Case{
			Name: fmt.Sprintf("layers-%d", n), Image: fmt.Sprintf("layers-%d", n), Command: nothing,
			Links: []Link{{Mbit: 1000}}, Count: n, Rounds: 5,
		})
	}
	return s
}

// growthFiles is about images of many files.
func growthFiles() Scenario {
	s := Scenario{
		Name:  "growth-files",
		Title: "Growth: files",
		About: "Images of 10,000, 100,000 and 1,000,000 files of 100 to 1,024 bytes in one layer, and one layer with a shell: " +
			"from the start of `ctr image pull` to the end of `true` in a container, on a new host with a dropped page " +
			"cache, at 1 Gbit/s. `resident` is the memory of the system's daemon when the container has ended, and " +
			"`per-file` what that is more than before the pull, divided by the number of files, `peak-per-file` the same of the most that it held. stargz takes no part in the largest, which keeps the " +
			"whole short.",
		Systems: []string{"overlayfs", "erofs", "ipcs", "stargz"},
		Quick:   []string{"overlayfs", "ipcs"},
		Main:    []string{metricReady.Name, metricResident.Name},
		Measure: measureFiles,
	}
	for _, c := range []Case{
		{Name: "files-10k", Count: 10_000, Rounds: 5, Quick: 1},
		{Name: "files-100k", Count: 100_000, Rounds: 5},
		{Name: "files-1m", Count: 1_000_000, Rounds: 3, Only: []string{"overlayfs", "erofs", "ipcs"}},
	} {
		c.Image, c.Command, c.Links = c.Name, nothing, []Link{{Mbit: 1000}}
		s.Cases = append(s.Cases, c)
	}
	return s
}

// growthContainers is about many containers at once.
func growthContainers() Scenario {
	s := Scenario{
		Name:  "growth-containers",
		Title: "Growth: containers that start at once",
		About: "1, 8 and 64 `ctr run` of the image debian, started at once, each of " + "`" + pythonImport + "`, where all " +
			"content is local and in the page cache: `run` is the time until all have ended, `busy` the share of all " +
			"processors' time in which they did something meanwhile, `resident` the memory of the system's daemon " +
			"afterwards. 64 containers are measured in three rounds, each of which is 64 starts already, as more would take " +
			"too long.",
		Systems: []string{"overlayfs", "erofs", "ipcs"},
		Measure: measureWarm,
	}
	for _, c := range []Case{{Count: 1, Rounds: 5}, {Count: 8, Rounds: 5}, {Count: 64, Rounds: 3}} {
		c.Name = fmt.Sprintf("containers-%d", c.Count)
		c.Image, c.Command = "debian", pythonImport
		s.Cases = append(s.Cases, c)
	}
	return s
}

// measureFiles measures cold starts, and what a file takes of the daemon's memory.
func measureFiles(ctx context.Context, r *Run) error {
	return measureStarts(ctx, r, func(t trial, st start) {
		t.recordStart(st)
		if st.took.resident > 0 {
			before := st.took.resident - st.took.grown
			t.record(metricPerFile, float64(st.took.grown)/float64(r.Count))
			t.record(metricPeakFile, float64(st.took.peak-before)/float64(r.Count))
		}
	})
}
