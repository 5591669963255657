//go:build linux

package metafs_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/erofs/erofstest"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/metafs/metafstest"
)

// The tree of the benchmark.
const (
	benchDirs, benchFiles = 600, 20 // files in each folder
	benchSmall            = 2 << 10
	benchLarge            = 128 << 20
)

// BenchmarkOverlay compares overlays on images that are served, and on ones that the kernel
// mounts, with an overlay on a folder, on the same files and in the same run. Each unit is the
// median ratio of times to that overlay's: of a walk that looks at every inode, of reading all
// small files, and of reading a large one; in a mount that nobody has read from, and again.
func BenchmarkOverlay(b *testing.B) {
	t := newBenchTree(b)
	mount := metafstest.Lazy(b)
	modes := map[string]func(dir string) string{
		"folder": func(string) string { return "lowerdir=" + t.folder + ":" + t.empty },
		"file": func(dir string) string {
			if err := unix.Mount(t.image, dir, "erofs", unix.MS_RDONLY, ""); err != nil {
				b.Fatal(err)
			}
			return "lowerdir=" + dir + "::" + t.data
		},
		"fuse": func(dir string) string {
			if err := mount(t.image, dir); err != nil {
				b.Fatal(err)
			}
			return "lowerdir=" + dir + "::" + t.data
		},
		"served": func(dir string) string {
			if err := mount(t.image, dir, t.data); err != nil {
				b.Fatal(err)
			}
			return "lowerdir=" + dir + ":" + t.empty
		},
	}
	ratios := make(map[string][]float64)
	for b.Loop() {
		base := t.measure(b, modes["folder"])
		for _, mode := range []string{"file", "fuse", "served"} {
			for what, took := range t.measure(b, modes[mode]) {
				ratios[mode+"-"+what] = append(ratios[mode+"-"+what], took.Seconds()/base[what].Seconds())
			}
		}
	}
	for unit, all := range ratios {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
}

// benchTree is the same tree in two forms: a folder, and an image with its data beside it.
type benchTree struct{ folder, image, data, empty string }

func newBenchTree(b *testing.B) *benchTree {
	b.Helper()
	hosttest.Root(b)
	dir := b.TempDir()
	t := &benchTree{filepath.Join(dir, "folder"), filepath.Join(dir, "image"), filepath.Join(dir, "data"), filepath.Join(dir, "empty")}
	builder := erofstest.NewBuilder()
	err := errors.Join(os.Mkdir(t.data, 0o755), os.Mkdir(t.empty, 0o755), os.Mkdir(t.folder, 0o755))
	add := func(parent int, path string, size int) {
		object := fmt.Sprint(len(builder.Inodes))
		err = errors.Join(err, os.WriteFile(filepath.Join(t.data, object), make([]byte, size), 0o644),
			os.Link(filepath.Join(t.data, object), filepath.Join(t.folder, path)))
		builder.Add(parent, filepath.Base(path), erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: uint64(size), Xattrs: []erofs.Xattr{
			{Name: "trusted.overlay.metacopy"}, {Name: "trusted.overlay.redirect", Value: "/" + object}}})
	}
	for i := range benchDirs {
		name := fmt.Sprintf("directory-%d", i)
		parent := builder.Add(0, name, erofs.Inode{Mode: unix.S_IFDIR | 0o755})
		err = errors.Join(err, os.Mkdir(filepath.Join(t.folder, name), 0o755))
		for j := range benchFiles {
			add(parent, fmt.Sprintf("%s/file-%d", name, j), benchSmall)
		}
	}
	add(0, "large", benchLarge)
	f, ferr := os.Create(t.image)
	if err := errors.Join(err, ferr); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(erofs.Write(f, builder.Tree(), erofs.Options{UUID: [16]byte{1}}), f.Close()); err != nil {
		b.Fatal(err)
	}
	return t
}

// measure mounts an overlay and takes the times.
func (t *benchTree) measure(b *testing.B, lower func(dir string) string) map[string]time.Duration {
	b.Helper()
	lowerDir, dir := b.TempDir(), b.TempDir()
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, lower(lowerDir)); err != nil {
		b.Fatal(err)
	}
	took := make(map[string]time.Duration)
	for _, again := range []string{"first", "again"} {
		for _, step := range []struct {
			what string
			do   func(dir string) error
		}{{"find", walk}, {"small", readSmall}, {"large", readLarge}} {
			start := time.Now()
			if err := step.do(dir); err != nil {
				b.Fatal(err)
			}
			took[step.what+"-"+again] = time.Since(start)
		}
	}
	if err := unix.Unmount(dir, 0); err != nil {
		b.Fatal(err)
	}
	if err := unix.Unmount(lowerDir, 0); err != nil && !errors.Is(err, unix.EINVAL) { // a folder
		b.Fatal(err)
	}
	return took
}

func walk(dir string) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
}

func readSmall(dir string) error {
	buf := make([]byte, benchSmall)
	for i := range benchDirs {
		for j := range benchFiles {
			f, err := os.Open(fmt.Sprintf("%s/directory-%d/file-%d", dir, i, j))
			if err != nil {
				return err
			}
			_, err = io.ReadFull(f, buf)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}

func readLarge(dir string) error {
	f, err := os.Open(filepath.Join(dir, "large"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}
