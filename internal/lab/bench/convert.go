package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// measureConvert takes turns, and has both sides read from the page cache.
func measureConvert(ctx context.Context, r *Run) error {
	return r.onPublisher(ctx, func(m *lab.Machine, layout string) error {
		if err := readAll(layout); err != nil {
			return err
		}
		return r.inTurns(
			func(round int) error { return untarOnce(ctx, r, m, round, layout) },
			func(round int) error { return convertOnce(ctx, r, m, round, layout) })
	})
}

// untarOnce unpacks the layers.
func untarOnce(ctx context.Context, r *Run, m *lab.Machine, round int, layout string) (err error) {
	syscall.Sync() // nobody waits for what another has written
	dir := filepath.Join(m.Dir(), fmt.Sprintf("untar-%d", round))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	took, err := timedWrites(dir, func() (time.Duration, error) { return untar(ctx, m, layout, dir) })
	if err != nil {
		return err
	}
	r.recordSpent(round, sideTar, took, "")
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
	syscall.Sync()
	d, err := m.StartDaemon(ctx, lab.DaemonOptions{Root: fmt.Sprintf("convert-%d", round), Pprof: r.Profile("daemon", round)})
	if err != nil {
		return err
	}
	dir := filepath.Join(m.Dir(), fmt.Sprintf("converted-%d", round))
	defer func() { err = errors.Join(err, d.Stop(), os.RemoveAll(d.Root()), os.RemoveAll(dir)) }()
	first, err := runMetered(ctx, m, d, "unixfs", layout, filepath.Join(dir, "first"), r.Profile("convert", round))
	if err != nil {
		return err
	}
	again, err := runConvert(ctx, m, d, "unixfs", layout, filepath.Join(dir, "again"), r.Profile("convert-again", round))
	if err != nil {
		return err
	}
	if err := r.recordMetadata(round, layout, filepath.Join(dir, "first")); err != nil {
		return err
	}
	r.recordConverted(round, first, fmt.Sprintf(", again %6.2f s", again.took.Seconds()))
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
