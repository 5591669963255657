package bench

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// What a run needs to be free, in bytes: the servers' disks and the page cache of what is
// read are in memory, the images and the consumers' disks are not.
const (
	wholeMemory, wholeDisk = 16e9, 30e9
	quickMemory, quickDisk = 4e9, 8e9
)

// ready returns an error where the run would end in the middle of it: as there is too
// little room, or no lab since it needs root or another run has it.
func (b *bench) ready(ctx context.Context) error {
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return err
	}
	available, err := memory("MemAvailable")
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(b.Cache, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", b.Cache, err)
	}
	memory, disk := wholeMemory, wholeDisk
	if b.Quick {
		memory, disk = quickMemory, quickDisk
	}
	if err := room("memory", float64(available), memory); err != nil {
		return err
	}
	if err := room("the file system of "+b.Cache, float64(fs.Bavail)*float64(fs.Bsize), disk); err != nil {
		return err
	}
	r := &Run{bench: b}
	return r.Lab(ctx, func(*lab.Lab) error { return nil })
}

// room returns an error if there is less than needed.
func room(of string, free, needed float64) error {
	if free >= needed {
		return nil
	}
	return fmt.Errorf("%s: %s are free, and this run needs %s: make room (a quick run needs least)",
		of, result.Format(free, "B"), result.Format(needed, "B"))
}

// note records in the report which image is measured.
func (r *Run) note(name, layout string) error {
	img, err := images.Open(layout)
	if err != nil {
		return err
	}
	i := result.Image{Manifest: img.Target.Digest.String()}
	for _, layer := range img.Manifest.Layers {
		i.Bytes += layer.Size
	}
	r.out.Images[name] = i
	return nil
}
