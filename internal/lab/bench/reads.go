package bench

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// A read is a way to use the image "files", which has many small files below small and
// one large file below large.
type read struct {
	name string
	do   func(ctx context.Context, t tree) error
}

// A tree is a mount of an image.
type tree struct {
	root  string
	paths []string // of all that is in it, as they are below root
}

// reads are the ways that are measured.
func reads() []read {
	return []read{{"find", find}, {"stat", statAll}, {"small-files", readSmall}, {"large-file", readLarge}, {"mmap", mapLarge}}
}

// find lists all that is there.
func find(ctx context.Context, t tree) error {
	return exec.CommandContext(ctx, "find", t.root, "-ls").Run()
}

// statAll looks up every name, without reading directories.
func statAll(_ context.Context, t tree) error {
	for _, p := range t.paths {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(t.root, p), &st); err != nil {
			return fmt.Errorf("stat %s: %w", p, err)
		}
	}
	return nil
}

// readSmall reads every small file, as it is found.
func readSmall(_ context.Context, t tree) error { return readAll(filepath.Join(t.root, "small")) }

// readLarge reads the large file.
func readLarge(_ context.Context, t tree) error { return readAll(filepath.Join(t.root, "large")) }

// readAll reads every file below root, one after the other.
func readAll(root string) error {
	buf := make([]byte, 1<<20)
	return eachFile(root, func(path string) error {
		_, err := readFile(path, buf)
		return err
	})
}

// mappings is how often mapLarge maps a file, as once is over in a few milliseconds.
const mappings = 10

// mapLarge reads one byte of every page of the large file, in one mapping after the other.
func mapLarge(_ context.Context, t tree) error {
	return eachFile(filepath.Join(t.root, "large"), func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		for range mappings {
			if err := mapFile(f, int(info.Size())); err != nil {
				return fmt.Errorf("map %s: %w", path, err)
			}
		}
		return nil
	})
}

// mapFile reads one byte of every page of a file, in a new mapping.
func mapFile(f *os.File, size int) error {
	pages, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	var sum byte
	for i := 0; i < len(pages); i += os.Getpagesize() {
		sum += pages[i]
	}
	runtime.KeepAlive(sum) // or the compiler might leave out the reads
	return unix.Munmap(pages)
}

// eachFile calls f for every regular file below root.
func eachFile(root string, f func(path string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return f(path)
	})
}

// list returns the paths of all that is below root.
func list(root string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		paths = append(paths, rel)
		return err
	})
	return paths, err
}
