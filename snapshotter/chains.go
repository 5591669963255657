//go:build linux

package snapshotter

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hinshun/ipcs/internal/erofs"
)

// chains keeps the EROFS images of runs of ipcs layers, and their mounts. Images are not
// synced to disk, which would hold up the first container: they are of one boot, and
// after a reboot, when a crash may have torn them, they are written anew as needed.
type chains struct {
	images string // folder of the images
	mounts string // folder of the mount points
	mount  func(image, dir string) error
	suffix string // ends the names of images: those for one DataMode are of no use in another
	log    *slog.Logger

	mu  sync.Mutex
	all map[string]*chain // by the id of their run
}

// A chain is one run that committed snapshots end in.
type chain struct {
	run  run
	uses int // snapshots; with chains.mu

	shown atomic.Pointer[shownFiles] // nil as long as it is not known

	mu      sync.Mutex // held to build, mount and drop
	dropped bool       // no longer in chains.all
}

// imageSuffix ends the names of images, whatever they are for. The boot they are of stands in
// the file bootName.
const (
	imageSuffix = ".erofs"
	bootName    = "boot"
)

func newChains(images, mounts string, mount func(image, dir string) error, data DataMode, log *slog.Logger) *chains {
	kind := ".data"
	if data.namesHidden() {
		kind = ".hidden"
	}
	return &chains{images: images, mounts: mounts, mount: mount, suffix: kind + imageSuffix, log: log, all: make(map[string]*chain)}
}

func (cs *chains) image(id string) string      { return filepath.Join(cs.images, id+cs.suffix) }
func (cs *chains) mountPoint(id string) string { return filepath.Join(cs.mounts, id) }

// retain counts one more snapshot that ends in a run.
func (cs *chains) retain(r run) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[r.id]
	if c == nil {
		c = &chain{run: r}
		cs.all[r.id] = c
	}
	c.uses++
}

// release counts one less. The image of a run that none is left of is unmounted and
// removed.
func (cs *chains) release(r run) error {
	cs.mu.Lock()
	c := cs.all[r.id]
	if c == nil {
		cs.mu.Unlock()
		return nil
	}
	if c.uses--; c.uses > 0 {
		cs.mu.Unlock()
		return nil
	}
	cs.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped || cs.used(c) {
		return nil // another cleared it away, or it has come to life again
	}
	// It is in chains.all until it is cleared away, so that nobody begins another one that
	// would find its mount.
	err := removeMount(cs.mountPoint(r.id))
	if rerr := os.Remove(cs.image(r.id)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	cs.forget(c)
	return err
}

func (cs *chains) used(c *chain) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return c.uses > 0
}

// forget drops a chain, unless it has come to life again. It is called with c.mu.
func (cs *chains) forget(c *chain) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.uses <= 0 && cs.all[c.run.id] == c {
		delete(cs.all, c.run.id)
		c.dropped = true
	}
}

// ensure mounts a run and returns where. If there is no image of it yet, it writes what
// build returns.
func (cs *chains) ensure(ctx context.Context, r run, build func(context.Context, run) (erofs.Tree, error)) (string, error) {
	cs.mu.Lock()
	c := cs.all[r.id]
	cs.mu.Unlock()
	if c == nil {
		return "", fmt.Errorf("chain %s: no snapshot has it any more", r.id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := cs.mountPoint(r.id)
	if c.dropped {
		return "", fmt.Errorf("chain %s: no snapshot has it any more", r.id)
	}
	if isImageMount(dir) {
		return dir, nil
	}
	if _, err := os.Stat(cs.image(r.id)); errors.Is(err, os.ErrNotExist) {
		tree, err := build(ctx, r)
		if err != nil {
			return "", err
		}
		if err := cs.write(r, tree); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := unmount(dir); err != nil { // the server of an image may have died
		return "", err
	}
	if err := cs.mount(cs.image(r.id), dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// write writes the image of a run.
func (cs *chains) write(r run, tree erofs.Tree) error {
	var opts erofs.Options
	if _, err := hex.Decode(opts.UUID[:], []byte(r.id[:2*len(opts.UUID)])); err != nil {
		return err
	}
	start := time.Now()
	if err := writeFile(cs.image(r.id), func(f *os.File) error { return erofs.Write(f, tree, opts) }); err != nil {
		return fmt.Errorf("write the EROFS image of chain %s: %w", r.id, err)
	}
	cs.log.Debug("wrote the image of a chain", "chain", r.id, "layers", len(r.roots), "inodes", tree.Len(), "took", time.Since(start))
	return nil
}

// open removes what a process before did not complete, images that no snapshot has, and
// after a reboot all images.
func (cs *chains) open() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("tell this boot from others: %w", err)
	}
	path := filepath.Join(cs.images, bootName)
	if sameFile(path, boot) == nil {
		return cs.clean(func(name string, used bool) bool { return !used && name != bootName })
	}
	if err := cs.clean(func(string, bool) bool { return true }); err != nil {
		return err
	}
	return writeFile(path, func(f *os.File) error {
		_, err := f.Write(boot)
		return errors.Join(err, f.Sync())
	})
}

// collect removes images that no snapshot has.
func (cs *chains) collect() error {
	return cs.clean(func(name string, used bool) bool { return !used && strings.HasSuffix(name, imageSuffix) })
}

// clean removes the files that are junk, given their names and whether a snapshot has
// them.
func (cs *chains) clean(junk func(name string, used bool) bool) error {
	entries, err := os.ReadDir(cs.images)
	if err != nil {
		return err
	}
	cs.mu.Lock() // keeps a chain from coming to life meanwhile
	defer cs.mu.Unlock()
	var errs []error
	for _, e := range entries {
		_, used := cs.all[strings.TrimSuffix(e.Name(), cs.suffix)]
		if junk(e.Name(), used) {
			errs = append(errs, os.Remove(filepath.Join(cs.images, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// close unmounts all images.
func (cs *chains) close() error {
	cs.mu.Lock()
	all := make([]*chain, 0, len(cs.all))
	for _, c := range cs.all {
		all = append(all, c)
	}
	clear(cs.all)
	cs.mu.Unlock()
	var errs []error
	for _, c := range all {
		c.mu.Lock()
		c.dropped = true
		errs = append(errs, removeMount(cs.mountPoint(c.run.id)))
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

// tops returns the chains that are no lower part of another, and those that are mounted,
// sorted by id.
func (cs *chains) tops() []*chain {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var tops []*chain
	for _, c := range cs.all {
		lower := false
		for _, o := range cs.all {
			lower = lower || c.run.prefixOf(&o.run)
		}
		if !lower || isImageMount(cs.mountPoint(c.run.id)) {
			tops = append(tops, c)
		}
	}
	slices.SortFunc(tops, func(a, b *chain) int { return strings.Compare(a.run.id, b.run.id) })
	return tops
}

// get returns the chain of a run.
func (cs *chains) get(id string) (*chain, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c, ok := cs.all[id]
	return c, ok
}
