//go:build linux

package snapshotter_test

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/memory"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/snapshotter"
)

// mountFolder in the environment makes the benchmark the process that mounts the image.
const mountFolder = "SNAPSHOTTER_BENCH_MOUNT"

// BenchmarkMount500k mounts an image of 500,000 files in one layer.
func BenchmarkMount500k(b *testing.B) { benchmarkMount(b, 1, 500_000) }

// BenchmarkMountDeep mounts an image of 500,000 files in 100 layers.
func BenchmarkMountDeep(b *testing.B) { benchmarkMount(b, 100, 5_000) }

// benchmarkMount prepares the layers of an image, whose blocks are files, and mounts it:
// each time in a new process, since a peak is that of a process. Reported are the time
// from the first Prepare until the overlay is mounted, what of it was spent on processors,
// and the memory that the process
// holds more than before, for each file: at most, and in the end.
func benchmarkMount(b *testing.B, layers, files int) {
	hosttest.Root(b)
	if dir := os.Getenv(mountFolder); dir != "" {
		mountOnce(b, dir, layers*files)
		return
	}
	dir := b.TempDir()
	writeImage(b, dir, layers, files)
	var took, used int64
	var peak, left float64
	for b.Loop() {
		args := []string{"-test.run=^$", "-test.bench=^" + b.Name() + "$", "-test.benchtime=1x"}
		if p := os.Getenv("SNAPSHOTTER_BENCH_PROFILE"); p != "" {
			args = append(args, "-test.cpuprofile="+p)
		}
		cmd := exec.CommandContext(b.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), mountFolder+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		var ns, cpu int64
		var most, end float64
		_, figures, ok := strings.Cut(string(out), mountFolder)
		if _, err := fmt.Sscan(figures, &ns, &cpu, &most, &end); err != nil || !ok {
			b.Fatalf("%v: %s", err, out)
		}
		took, used, peak, left = took+ns, used+cpu, max(peak, most), max(left, end)
	}
	b.ReportMetric(float64(took)/float64(b.N), "ns/op")
	b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(peak, "peak-B/file")
	b.ReportMetric(left, "end-B/file")
}

// mountOnce mounts the image in a folder, and prints what that took.
func mountOnce(b *testing.B, dir string, files int) {
	ctx, at := b.Context(), b.TempDir()
	config := snapshotter.Config{
		Root: filepath.Join(at, "root"), State: filepath.Join(at, "state"), ObjectsDir: filepath.Join(at, "objects"),
	}
	if err := os.MkdirAll(filepath.Join(config.ObjectsDir, objects.Hidden), 0o700); err != nil {
		b.Fatal(err)
	}
	cids, err := os.ReadFile(filepath.Join(dir, rootsFile))
	if err != nil {
		b.Fatal(err)
	}
	record, roots, _ := strings.Cut(string(cids), "\n")
	s, err := snapshotter.New(ctx, config, folder(dir), noLazy)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	memory.Follow(64 << 20) // as the daemon
	before := memoryOf(b, "VmRSS:")
	start, used := time.Now(), processorTime(b)
	var c chain
	for i, root := range strings.Fields(roots) {
		id, err := cid.Decode(root)
		if err != nil {
			b.Fatal(err)
		}
		labels, chainID := layerLabels(c.id, ipfs.Block{Cid: id})
		labels[mediatype.AnnotationImage] = record
		_, err = s.Prepare(ctx, fmt.Sprintf("test/%d/extract-1 %s", i, chainID), c.parent, snapshots.WithLabels(labels))
		if !errdefs.IsAlreadyExists(err) {
			b.Fatal(err)
		}
		c = chain{findSnapshot(b, ctx, s, chainID, c.parent), chainID}
	}
	mounts, err := s.Prepare(ctx, "container", c.parent)
	if err != nil {
		b.Fatal(err)
	}
	root := b.TempDir()
	if err := mount.All(mounts, root); err != nil {
		b.Fatal(err)
	}
	took, cpu := time.Since(start), processorTime(b)-used
	peak := memoryOf(b, "VmHWM:")
	time.Sleep(time.Second) // it is given back behind the mount
	defer func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			b.Error(err)
		}
	}()
	per := func(bytes int64) float64 { return float64(bytes-before) / float64(files) }
	fmt.Println(mountFolder, took.Nanoseconds(), cpu.Nanoseconds(), per(peak), per(memoryOf(b, "VmRSS:")))
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryOf reads a line of this process's status, in bytes.
func memoryOf(t testing.TB, line string) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(string(status), line)
	var kilobytes int64
	if _, err := fmt.Sscan(value, &kilobytes); err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

const rootsFile = "roots" // holds the CIDs of the image record and of the layers' roots

// writeImage writes the blocks of an image to a folder, without those of its files: they
// are as many as there are layers times files, of 100 in a folder.
func writeImage(b *testing.B, dir string, layers, files int) {
	b.Helper()
	cids := make([]string, 1, 1+layers)
	var roots []ipfs.Block
	for l := range layers {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeTar(w, l, files)) }()
		result, err := layer.Write(b.Context(), withoutFiles(dir), r, layer.WriteOptions{})
		if err != nil {
			b.Fatal(err)
		}
		roots, cids = append(roots, result.Root), append(cids, result.Root.Cid.String())
	}
	cids[0] = snapshotter.PutRecord(b, withoutFiles(dir), roots).Cid.String()
	if err := os.WriteFile(filepath.Join(dir, rootsFile), []byte(strings.Join(cids, "\n")), 0o600); err != nil {
		b.Fatal(err)
	}
}

func writeTar(to io.Writer, layer, files int) error {
	w := tar.NewWriter(to)
	for i := range files {
		body := fmt.Sprintf("%d/%d", layer, i)
		h := &tar.Header{Name: fmt.Sprintf("usr/lib/package-%04d/file-%d-%d.py", i/100, layer, i), Mode: 0o644, Size: int64(len(body)), ModTime: time.Unix(1_700_000_000, 0)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, body); err != nil {
			return err
		}
	}
	return w.Close()
}

// A folder is a source whose blocks are files.
type folder string

func (f folder) path(c cid.Cid) string { return filepath.Join(string(f), c.String()) }

func (f folder) Get(_ context.Context, c cid.Cid) ([]byte, error) { return os.ReadFile(f.path(c)) }

func (f folder) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := f.Get(ctx, c)
		if err == nil {
			err = fn(ipfs.Block{Cid: c, Data: data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// withoutFiles is a folder that takes no leaves of files as short as those of writeTar.
type withoutFiles string

func (f withoutFiles) Put(_ context.Context, blocks ...ipfs.Block) error {
	for _, b := range blocks {
		if b.Cid.Type() == cid.Raw && len(b.Data) < 32 {
			continue
		}
		if err := os.WriteFile(folder(f).path(b.Cid), b.Data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
