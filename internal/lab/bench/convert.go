package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// What is compared where images are converted, and its metrics.
const (
	sideTar     = "tar"
	sideConvert = "convert"
)

var (
	metricTime       = result.Metric{Name: "time", Unit: "s", Better: result.Lower}
	metricSynced     = result.Metric{Name: "synced", Unit: "s", Better: result.Lower}
	metricPeak       = result.Metric{Name: "peak", Unit: "B", Better: result.Lower}
	metricDaemonPeak = result.Metric{Name: "daemon-peak", Unit: "B", Better: result.Lower}
	metricIndex      = result.Metric{Name: "index", Unit: "B", Better: result.Lower}
	metricTarSplit   = result.Metric{Name: "tar-split", Unit: "B", Better: result.Lower}
	metricMetadata   = result.Metric{Name: "metadata", Unit: "%", Better: result.Lower}
)

// conversion is what a publisher pays, once for each image.
func conversion() Scenario {
	return Scenario{
		Name:  "convert",
		Title: "Converting",
		About: "`convert` from an OCI layout to the empty store of a new daemon, and to a new OCI layout, against " +
			"`tar xzf` of the same layers, one after the other, each into a folder of its own: what unpacks an image " +
			"and does nothing else. Both read from the page cache and write to the same disk, in turns. `time` is from " +
			"start to end of the program; convert returns when all is on the disk, tar does not wait for that, and " +
			"`synced` is the time until it is. `cpu` is what tar and gzip used, and convert and the daemon. `peak` is " +
			"the most memory that convert held, `daemon-peak` the daemon. `again` converts the image once more, to " +
			"another layout: the daemon has all of it. `index` and `tar-split` are the bytes of these parts of all layers, " +
			"and `metadata` is what they are together in percent of the compressed layers: what an ipcs image has " +
			"besides the files.",
		Base: sideTar,
		Cases: []Case{
			{Name: "debian", Image: "debian", Rounds: 5, Quick: 2},
			{Name: "golang", Image: "golang", Rounds: 5},
			{Name: "torch", Image: "torch", Rounds: 3},
		},
		Measure: measureConvert,
	}
}

// measureConvert takes turns, the one or the other first.
func measureConvert(ctx context.Context, r *Run) error {
	layout, err := r.Layout(ctx, r.Image)
	if err != nil {
		return err
	}
	return r.Lab(ctx, func(l *lab.Lab) error {
		m, err := l.Machine(ctx, "publisher")
		if err != nil {
			return err
		}
		if err := readAll(layout); err != nil { // into the page cache
			return err
		}
		sides := []func(context.Context, *Run, *lab.Machine, int, string) error{untarOnce, convertOnce}
		for round := range r.Rounds() {
			for _, side := range sides {
				syscall.Sync() // nobody waits for what another has written
				if err := side(ctx, r, m, round, layout); err != nil {
					return err
				}
			}
			slices.Reverse(sides)
		}
		return nil
	})
}

// untarOnce unpacks the layers.
func untarOnce(ctx context.Context, r *Run, m *lab.Machine, round int, layout string) (err error) {
	dir := filepath.Join(m.Dir(), fmt.Sprintf("untar-%d", round))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	start := time.Now()
	used, err := untar(ctx, m, layout, dir)
	if err != nil {
		return err
	}
	took := time.Since(start)
	if err := syncFS(dir); err != nil {
		return err
	}
	synced := time.Since(start)
	r.Log("%-18s %6.2f s, on the disk after %6.2f s, processors %6.2f s", sideTar, took.Seconds(), synced.Seconds(), used.Seconds())
	r.Record(round, sideTar, metricTime, took.Seconds())
	r.Record(round, sideTar, metricSynced, synced.Seconds())
	r.Record(round, sideTar, metricCPU, used.Seconds())
	return nil
}

// untar unpacks the layers of an image below dir, each into a folder of its own, and
// returns the processor time that this took.
func untar(ctx context.Context, m *lab.Machine, layout, dir string) (used time.Duration, err error) {
	img, err := images.Open(layout)
	if err != nil {
		return 0, err
	}
	for i, layer := range img.Manifest.Layers {
		if layer.MediaType != ocispec.MediaTypeImageLayerGzip {
			return 0, fmt.Errorf("layer %s is %s; tar xzf reads gzip", layer.Digest, layer.MediaType)
		}
		to := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return 0, err
		}
		cmd := m.Command(ctx, "tar", "-C", to, "-xzf", blob(layout, layer.Digest))
		if _, err := lab.Output(cmd); err != nil {
			return 0, err
		}
		used += processorTime(cmd)
	}
	return used, nil
}

// blob is the path of a blob in a layout.
func blob(layout string, d digest.Digest) string {
	return filepath.Join(layout, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// convertOnce converts the image on a new daemon, twice.
func convertOnce(ctx context.Context, r *Run, m *lab.Machine, round int, layout string) (err error) {
	d, err := m.StartDaemon(ctx, lab.DaemonOptions{Root: fmt.Sprintf("convert-%d", round), Pprof: r.Profile("daemon", round)})
	if err != nil {
		return err
	}
	dir := filepath.Join(m.Dir(), fmt.Sprintf("converted-%d", round))
	defer func() { err = errors.Join(err, d.Stop(), os.RemoveAll(d.Root()), os.RemoveAll(dir)) }()
	before, err := d.CPU()
	if err != nil {
		return err
	}
	first, err := runConvert(ctx, m, d, "unixfs", layout, filepath.Join(dir, "first"), r.Profile("convert", round))
	if err != nil {
		return err
	}
	after, err1 := d.CPU()
	peak, err2 := d.Peak()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	again, err := runConvert(ctx, m, d, "unixfs", layout, filepath.Join(dir, "again"), r.Profile("convert-again", round))
	if err != nil {
		return err
	}
	if err := r.recordMetadata(round, layout, filepath.Join(dir, "first")); err != nil {
		return err
	}
	used := first.cpu + after - before
	r.Log("%-18s %6.2f s, on the disk after %6.2f s, processors %6.2f s, peak %.0f MiB and the daemon's %.0f MiB, again %6.2f s",
		sideConvert, first.took.Seconds(), first.synced.Seconds(), used.Seconds(), float64(first.peak)/(1<<20), float64(peak)/(1<<20), again.took.Seconds())
	r.Record(round, sideConvert, metricTime, first.took.Seconds())
	r.Record(round, sideConvert, metricSynced, first.synced.Seconds())
	r.Record(round, sideConvert, metricCPU, used.Seconds())
	r.Record(round, sideConvert, metricPeak, float64(first.peak))
	r.Record(round, sideConvert, metricDaemonPeak, float64(peak))
	r.Record(round, sideConvert, metricAgain, again.took.Seconds())
	return nil
}

// recordMetadata notes what an image takes besides its files: the indexes and tar-splits of
// its layers, with the nodes above their leaves. The layer roots, which are the blobs of the
// converted image, say so.
func (r *Run) recordMetadata(round int, from, to string) error {
	original, err1 := images.Open(from)
	converted, err2 := images.Open(to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var compressed, index, split uint64
	for i, layer := range converted.Manifest.Layers {
		data, err := os.ReadFile(blob(to, layer.Digest))
		if err != nil {
			return err
		}
		root, err := merkledag.DecodeProtobuf(data)
		if err != nil {
			return fmt.Errorf("layer root %s: %w", layer.Digest, err)
		}
		x, err1 := root.GetNodeLink("index")
		s, err2 := root.GetNodeLink("tar-split")
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("layer root %s: %w", layer.Digest, err)
		}
		size := uint64(original.Manifest.Layers[i].Size)
		r.Log("%-18s layer %d: index %d bytes and tar-split %d bytes, %.2f %% of %d compressed",
			sideConvert, i, x.Size, s.Size, 100*float64(x.Size+s.Size)/float64(size), size)
		compressed, index, split = compressed+size, index+x.Size, split+s.Size
	}
	r.Record(round, sideConvert, metricIndex, float64(index))
	r.Record(round, sideConvert, metricTarSplit, float64(split))
	r.Record(round, sideConvert, metricMetadata, 100*float64(index+split)/float64(compressed))
	return nil
}

// converted is what a run of convert took.
type converted struct {
	took, synced, cpu time.Duration
	peak              int64
}

// runConvert converts the image of one layout into another, to unixfs or back to tar.
func runConvert(ctx context.Context, m *lab.Machine, d *lab.Daemon, mediatype, from, to, profile string) (converted, error) {
	args := []string{"--mediatype", mediatype, "--ipfs-api", d.API}
	if profile != "" {
		args = append(args, "--pprof", profile)
	}
	cmd := m.Command(ctx, "convert", append(args, "oci:"+from+":"+images.Tag, "oci:"+to+":"+images.Tag)...)
	var c converted
	start := time.Now()
	peak, err := outputPeak(cmd)
	if err != nil {
		return c, err
	}
	c.took, c.cpu, c.peak = time.Since(start), processorTime(cmd), peak
	if err := syncFS(to); err != nil {
		return c, err
	}
	c.synced = time.Since(start)
	return c, nil
}

// processorTime is what a command that has ended used, with what it started and waited for.
func processorTime(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// syncFS waits until all that was written to the disk of a folder is on it.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the disk of %s: %w", dir, err)
	}
	return nil
}
