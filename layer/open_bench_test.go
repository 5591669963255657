package layer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// openFolder in the environment makes the benchmark the process that opens the layer.
const openFolder = "LAYER_BENCH_OPEN"

// BenchmarkOpenMillion opens a layer of a million entries, whose blocks are files: each time
// in a new process with one core, since a peak is that of a process. It reports the time of
// Open alone, and the most memory that the process held.
func BenchmarkOpenMillion(b *testing.B) {
	if dir := os.Getenv(openFolder); dir != "" {
		openOnce(b, folder(dir))
		return
	}
	dir := b.TempDir()
	writeMillion(b, folder(dir))
	var took, most int64
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^"+b.Name()+"$", "-test.benchtime=1x")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", openFolder+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		var ns, peak int64
		_, figures, ok := strings.Cut(string(out), openFolder)
		if _, err := fmt.Sscan(figures, &ns, &peak); err != nil || !ok {
			b.Fatalf("%v: %s", err, out)
		}
		took, most = took+ns, max(most, peak)
	}
	b.ReportMetric(float64(took)/float64(b.N), "ns/op")
	b.ReportMetric(float64(most)/(1<<10), "peak-MiB")
}

// openOnce opens the layer in a folder, and prints nanoseconds and kilobytes.
func openOnce(b *testing.B, src folder) {
	root, err := os.ReadFile(filepath.Join(string(src), rootFile))
	if err != nil {
		b.Fatal(err)
	}
	c, err := cid.Decode(string(root))
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	l, err := Open(b.Context(), src, c)
	took := time.Since(start)
	if err != nil || len(l.Index.Entries) != million {
		b.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	peak, _, _ = strings.Cut(peak, "kB")
	fmt.Println(openFolder, took.Nanoseconds(), peak)
}

const (
	million  = 1_000_000
	rootFile = "root" // holds the CID of the layer's root
)

// writeMillion writes a layer of a million entries to a folder.
func writeMillion(b *testing.B, dst folder) {
	b.Helper()
	root, m := largeLayer(b, million)
	for c, data := range m.blocks {
		if err := os.WriteFile(filepath.Join(string(dst), c.String()), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(string(dst), rootFile), []byte(root.Cid.String()), 0o600); err != nil {
		b.Fatal(err)
	}
}

// A folder is a source whose blocks are files.
type folder string

func (f folder) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), c.String()))
}

func (f folder) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return fetchEach(ctx, f.Get, cids, fn)
}
