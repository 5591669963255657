package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A recipe makes an image into the layout at dir. The version changes with what it
// makes.
type recipe struct {
	version string
	make    func(ctx context.Context, dir string, log func(string, ...any)) error
}

var recipes = map[string]recipe{
	"debian": {"1", makeDebian},
	"nasty":  {"2", makeNasty},
	"files":  {"1", makeFiles},
}

// Ensure returns the layout DIR/NAME of one of the images "debian", "nasty" and "files", and
// makes it if it is not there in the version of its recipe. It is for one process at
// a time per name; the others wait.
func Ensure(ctx context.Context, dir, name string, log func(string, ...any)) (string, error) {
	r, ok := recipes[name]
	if !ok {
		return "", fmt.Errorf("no image %q: there are debian, nasty and files", name)
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
		return "", err
	}
	layout, stamp := filepath.Join(dir, name), filepath.Join(dir, name+".version")
	have, err := os.ReadFile(stamp)
	if err == nil && strings.TrimSpace(string(have)) == r.version {
		return layout, nil
	}
	if err := errors.Join(os.RemoveAll(stamp), r.make(ctx, layout, log)); err != nil {
		return "", fmt.Errorf("make image %s: %w", name, err)
	}
	return layout, os.WriteFile(stamp, []byte(r.version+"\n"), 0o644)
}
