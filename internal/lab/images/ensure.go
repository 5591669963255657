package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A recipe makes an image. The version changes with what it makes.
type recipe struct {
	version string
	from    string // the image that it is made from, which is made first; "" for none
	make    func(ctx context.Context, j job) error
}

// A job is one run of a recipe.
type job struct {
	dir  string  // of the layout to make
	from *Stored // the image of recipe.from
	work string  // an empty folder, which is removed afterwards
	log  func(string, ...any)
}

// write writes the layout that the job is to make.
func (j job) write(ctx context.Context, img Image) error {
	_, err := Write(ctx, j.dir, img)
	return err
}

// cookbook is a table of recipes by the names of their images.
type cookbook map[string]recipe

// zstdSuffix after the name of an image is that image with layers in zstd.
const zstdSuffix = "+zstd"

// find returns the recipe of an image.
func (c cookbook) find(name string) (recipe, error) {
	plain, zstd := strings.CutSuffix(name, zstdSuffix)
	r, ok := c[plain]
	switch {
	case !ok:
		names := strings.Join(slices.Sorted(maps.Keys(c)), ", ")
		return r, fmt.Errorf("no image %q: there are %s, and each with %s after its name", name, names, zstdSuffix)
	case zstd:
		return recipe{version: "1", from: plain, make: recompressed}, nil
	}
	return r, nil
}

// recompressed makes the same image with layers in zstd.
func recompressed(ctx context.Context, j job) error {
	return Recompress(ctx, j.from.dir, j.dir, Zstd)
}

// Check returns the error that Ensure has for a name that is unknown.
func Check(name string) error {
	_, err := recipes.find(name)
	return err
}

// Ensure returns the layout DIR/NAME of an image, and makes it if it is not there in
// the version of its recipe, or was made from another version of the image it stands
// on. The error for a name that is unknown lists all; NAME+zstd is the image NAME with
// layers in zstd. It is for one process at a time per name; the others wait.
func Ensure(ctx context.Context, dir, name string, log func(string, ...any)) (string, error) {
	return recipes.ensure(ctx, dir, name, log)
}

func (c cookbook) ensure(ctx context.Context, dir, name string, log func(string, ...any)) (string, error) {
	r, err := c.find(name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock image %s: %w", name, err)
	}
	layout := filepath.Join(dir, name)
	j := job{dir: layout, work: layout + ".work", log: func(format string, args ...any) { log(name+": "+format, args...) }}
	want := r.version
	if r.from != "" {
		from, err := c.ensure(ctx, dir, r.from, log)
		if err != nil {
			return "", err
		}
		if j.from, err = Open(from); err != nil {
			return "", err
		}
		want += " from " + j.from.Target.Digest.String()
	}
	stamp := layout + ".version"
	have, err := os.ReadFile(stamp)
	if err == nil && strings.TrimSpace(string(have)) == want {
		return layout, nil
	}
	if err := errors.Join(os.RemoveAll(stamp), r.run(ctx, j)); err != nil {
		return "", fmt.Errorf("make image %s: %w", name, err)
	}
	return layout, os.WriteFile(stamp, []byte(want+"\n"), 0o644)
}

// run makes the image, and leaves nothing but that, also of a run that was killed.
func (r recipe) run(ctx context.Context, j job) error {
	for _, dir := range []string{j.work, part(j.dir)} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.Mkdir(j.work, 0o755); err != nil {
		return err
	}
	err := r.make(ctx, j)
	if err == nil {
		err = ctx.Err()
	}
	return errors.Join(err, os.RemoveAll(j.work))
}
