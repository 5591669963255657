package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// restoration is what whoever wants the ordinary image again pays.
func restoration() Scenario {
	return Scenario{
		Name:  "restore",
		Title: "Converting back",
		About: "`convert --mediatype tar` of a converted image, from one OCI layout to another, against `tar c` of the same " +
			"layers, unpacked, one after the other, each from a folder of its own into a file. Layers are not compressed " +
			"on either side. convert asks the daemon that has the files for them and for what UnixFS does not say, writes " +
			"the very tars that the layers were, hashes them, and fails if a single bit is different; tar writes its own, " +
			"and hashes nothing. Both have all that they read in the page cache: every file of the unpacked layers, or of " +
			"the daemon's store, is read to its end just before. Both write to the same disk, in turns, when nothing is " +
			"left to be written there. `time` is from start to end of the program; convert returns when all is on the " +
			"disk, tar does not wait for that, and `synced` is the time until it is. `cpu` is what tar used, and convert " +
			"and the daemon. `peak` is the most memory that convert held, `daemon-peak` the daemon, which is a new one " +
			"in every round.",
		Base: sideTar,
		Cases: []Case{
			{Name: "debian", Image: "debian", Rounds: 5, Quick: 2},
			{Name: "golang", Image: "golang", Rounds: 5},
			{Name: "torch", Image: "torch", Rounds: 5},
		},
		Measure: measureRestore,
	}
}

// A wayBack is an image that is on its way back: converted, and unpacked.
type wayBack struct {
	*Run
	machine   *lab.Machine
	original  string // layout of the ordinary image
	converted string // layout of the ipcs image
	tree      string // folder of the unpacked layers
}

// storeRoot names the folder of the daemon that has the converted image.
const storeRoot = "store"

// measureRestore takes turns.
func measureRestore(ctx context.Context, r *Run) error {
	return r.onPublisher(ctx, func(m *lab.Machine, layout string) error {
		b := wayBack{
			Run: r, machine: m, original: layout,
			converted: filepath.Join(m.Dir(), "converted"), tree: filepath.Join(m.Dir(), "unpacked"),
		}
		if err := b.prepare(ctx); err != nil {
			return err
		}
		return r.inTurns(
			func(round int) error { return b.tar(ctx, round) },
			func(round int) error { return b.restore(ctx, round) })
	})
}

// prepare unpacks the image, and converts it.
func (b wayBack) prepare(ctx context.Context) (err error) {
	if _, err := untar(ctx, b.machine, b.original, b.tree); err != nil {
		return err
	}
	d, err := b.machine.StartDaemon(ctx, lab.DaemonOptions{Root: storeRoot})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	_, err = runConvert(ctx, b.machine, d, "unixfs", b.original, b.converted, "")
	return err
}

// tar makes a tar of each layer's folder.
func (b wayBack) tar(ctx context.Context, round int) (err error) {
	layers, err := os.ReadDir(b.tree)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.machine.Dir(), "tars")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := intoCache(b.tree); err != nil {
		return err
	}
	took, err := timedWrites(dir, func() (used time.Duration, err error) {
		for _, layer := range layers {
			to := filepath.Join(dir, layer.Name()+".tar")
			cmd := b.machine.Command(ctx, "tar", "-C", filepath.Join(b.tree, layer.Name()), "-cf", to, ".")
			if _, err := lab.Output(cmd); err != nil {
				return 0, err
			}
			used += processorTime(cmd)
		}
		return used, nil
	})
	if err != nil {
		return err
	}
	b.recordSpent(round, sideTar, took, "")
	return nil
}

// restore converts the image back, with a new daemon on the old store.
func (b wayBack) restore(ctx context.Context, round int) (err error) {
	d, err := b.machine.StartDaemon(ctx, lab.DaemonOptions{Root: storeRoot, Pprof: b.Profile("daemon", round)})
	if err != nil {
		return err
	}
	dir := filepath.Join(b.machine.Dir(), "restored")
	defer func() { err = errors.Join(err, d.Stop(), os.RemoveAll(dir)) }()
	if err := intoCache(d.Root()); err != nil {
		return err
	}
	c, err := runMetered(ctx, b.machine, d, "tar", b.converted, dir, b.Profile("convert", round))
	if err != nil {
		return err
	}
	if err := b.isOriginal(dir); err != nil {
		return err
	}
	b.recordConverted(round, c, "")
	return nil
}

// isOriginal says whether a restored image has the original's config, and layers that are
// what this says.
func (b wayBack) isOriginal(dir string) error {
	want, err1 := images.Open(b.original)
	got, err2 := images.Open(dir)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if got.Manifest.Config.Digest != want.Manifest.Config.Digest {
		return fmt.Errorf("the config of the restored image is %s, and was %s", got.Manifest.Config.Digest, want.Manifest.Config.Digest)
	}
	for i, l := range got.Manifest.Layers {
		if l.Digest != want.Config.RootFS.DiffIDs[i] {
			return fmt.Errorf("layer %d of the restored image is %s, and was %s", i, l.Digest, want.Config.RootFS.DiffIDs[i])
		}
	}
	return nil
}

// intoCache brings a folder into the page cache, and writes what is not on the disk yet:
// nobody waits for what another has left to do.
func intoCache(folder string) error {
	if err := readAll(folder); err != nil {
		return err
	}
	syscall.Sync()
	return nil
}
