package bench

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// The metrics of disks.
var (
	metricDisk   = result.Metric{Name: "disk", Unit: "B", Better: result.Lower}
	metricLayers = result.Metric{Name: "layers", Unit: "B"}
)

// collection is what one host has, in the order in which it gets there.
func collection() []string {
	return []string{"base", "base-updated", "debian", "node", "golang", "golang-previous", "postgres", "torch"}
}

// disk is about what many images together take.
func disk() Scenario {
	return Scenario{
		Name:  "disk",
		Title: "Disk for all images together",
		About: "One new host for each system gets one image after the other, and all content of it: pulled, mounted, and " +
			"every file read to its end. `disk` is what the folders of containerd and of the system's daemons take after " +
			"each image, with those before it: blocks of the file system, each inode once, nothing that is mounted. " +
			"For containerd's own snapshotters that is the compressed layers, which it keeps, and the unpacked ones. " +
			"ipcs has what a container can read of each image. " +
			"`layers` is the size of the compressed layers alone, each once, for those whose registry has them. " +
			"debian, node, postgres and both golang are on the same base layer as base; base-updated is another, of " +
			"a later date. One round: nothing here is left to chance.",
		Systems: []string{"overlayfs", "overlayfs-zstd", "erofs", "ipcs"},
		Cases:   []Case{{Name: "all", Rounds: 1}},
		Measure: measureDisk,
	}
}

// measureDisk records under the names of the images, each with a plus.
func measureDisk(ctx context.Context, r *Run) error {
	all := r.Name
	return r.Each(ctx, func(s system.System) error {
		r.Name = all // what fails before the first image has to do with none
		return r.Lab(ctx, func(l *lab.Lab) error { return collect(ctx, r, l, s) })
	})
}

// collect brings all images to one host.
func collect(ctx context.Context, r *Run, l *lab.Lab, s system.System) (err error) {
	site, err := r.site(ctx, l)
	if err != nil {
		return err
	}
	published, err := publishAll(ctx, site, s)
	if err != nil {
		return err
	}
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return err
	}
	last := published[len(published)-1]
	h, err := s.Start(ctx, m, s.Name(), system.Options{
		Peers: last.Peers, Registry: last.Registry(), Profile: r.Profile(s.Name(), 0),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	layers := map[digest.Digest]int64{}
	for _, img := range published {
		r.Name = "+" + img.Name
		if _, err := pullWhole(ctx, h, img.Ref, wholeReaders); err != nil {
			return fmt.Errorf("%s: %w%s", img.Name, err, h.Tail())
		}
		if err := allHere(ctx, h, img.Ref); err != nil {
			return fmt.Errorf("%s: %w", img.Name, err)
		}
		remote, err := images.Get(ctx, img.Ref, site.Store.HTTPClient())
		if err != nil {
			return err
		}
		for _, layer := range remote.Manifest.Layers {
			layers[layer.Digest] = layer.Size
		}
		if err := r.recordDisk(ctx, s, h, layers); err != nil {
			return err
		}
	}
	return nil
}

// publishAll publishes the collection for one system.
func publishAll(ctx context.Context, site *system.Site, s system.System) ([]*system.Image, error) {
	var all []*system.Image
	for _, name := range collection() {
		img, err := s.Publish(ctx, site, system.Source{Image: name})
		if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
	return all, nil
}

// recordDisk notes what a host has on its disk, and what the layers are together if they
// are what it got.
func (r *Run) recordDisk(ctx context.Context, s system.System, h *system.Host, layers map[digest.Digest]int64) error {
	syscall.Sync() // what is not written has no blocks on some file systems
	bytes, err := diskUsage(ctx, h.Folders...)
	if err != nil {
		return err
	}
	r.Record(0, s.Name(), metricDisk, float64(bytes))
	var sum int64
	for _, size := range layers {
		sum += size
	}
	if h.Daemon == nil {
		r.Record(0, s.Name(), metricLayers, float64(sum))
	}
	r.Log("%-18s %-18s %7.1f MB on the disk, layers %7.1f MB", s.Name(), r.Name, float64(bytes)/1e6, float64(sum)/1e6)
	return nil
}
