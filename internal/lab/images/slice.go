package images

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/gzip"
)

// A slice is a recipe: so many MB, compressed, of the files of another image, in one
// layer. They are to be pulled and read, not to be run.
type slice int

func (mb slice) make(ctx context.Context, j job) error {
	root := filepath.Join(j.work, "root")
	if err := j.from.unpack(ctx, root); err != nil {
		return err
	}
	paths, err := choose(root, int64(mb)*1e6)
	if err != nil {
		return err
	}
	j.log("%d files", len(paths))
	return j.write(ctx, Image{
		Layers: []Layer{{
			CreatedBy: "COPY some of it /",
			Tar:       Tar(func(t *Tarball) { addFiles(t, root, paths) }),
		}},
		Config: config(),
	})
}

// choose returns the paths, in order, of regular files below root that are about size
// bytes in all when compressed. The hash of a file's path decides whether it is among
// them, so the choice is the same each time, and a larger one holds most of a smaller.
// None is so large that it would make up most of the choice.
func choose(root string, size int64) ([]string, error) {
	paths, err := regularFiles(root, size/4)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(paths, func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return cmp.Or(slices.Compare(x[:], y[:]), cmp.Compare(a, b))
	})
	var have int64
	compress := gzip.NewWriter(writerFunc(func(p []byte) (int, error) {
		have += int64(len(p))
		return len(p), nil
	}))
	for i, path := range paths {
		if have >= size {
			paths = paths[:i]
			break
		}
		if err := copyFile(compress, filepath.Join(root, path)); err != nil {
			return nil, err
		}
	}
	if have < size {
		return nil, fmt.Errorf("the files of the image are %d bytes compressed, want %d", have, size)
	}
	slices.Sort(paths)
	return paths, compress.Close()
}

// regularFiles returns the paths of the regular files below root of at most limit bytes.
func regularFiles(root string, limit int64) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > limit {
			return err
		}
		rel, err := filepath.Rel(root, path)
		paths = append(paths, rel)
		return err
	})
	return paths, err
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// addFiles adds the files at those paths below root, and the folders they are in.
func addFiles(t *Tarball, root string, paths []string) {
	known := map[string]bool{".": true}
	var folder func(dir string)
	folder = func(dir string) {
		if !known[dir] {
			known[dir] = true
			folder(filepath.Dir(dir))
			t.Dir(dir, 0o755)
		}
	}
	for _, path := range paths {
		folder(filepath.Dir(path))
		info, err := os.Lstat(filepath.Join(root, path))
		if err != nil {
			t.Fail(err)
			return
		}
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fail(err)
			return
		}
		t.Entry(tar.Header{
			Typeflag: tar.TypeReg, Name: path, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(),
		}, content)
	}
}
