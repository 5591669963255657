package tuning

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
)

// datastores compares what Kubo may keep blocks in: putting a set into it, and getting that
// back after a restart, first from the disk and then from memory.
func (s *study) datastores(ctx context.Context) (tables []Table, err error) {
	t := Table{
		Name: "datastores", Title: s.set.String() + ":",
		Head: []string{"datastore", "put, MB/s", "s of processor a GB", "get after a restart, nothing in memory, MB/s", "get again, MB/s", "on the disk, MB", "Kubo's memory at most, MB"},
	}
	profiles := []string{"flatfs", "pebbleds", "badgerds"}
	puts, colds, warms := map[string][]sample{}, map[string][]sample{}, map[string][]sample{}
	disks, memories := map[string]int64{}, map[string]int64{}
	for round := range s.Rounds {
		for i := range profiles {
			name := profiles[(i+round)%len(profiles)]
			got, err := s.datastore(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			s.Log("%s: put in %v, got in %v and %v, %d MB on the disk", name, got.put.took, got.cold.took, got.warm.took, got.disk/1e6)
			puts[name], colds[name], warms[name] = append(puts[name], got.put), append(colds[name], got.cold), append(warms[name], got.warm)
			disks[name], memories[name] = got.disk, max(memories[name], got.memory)
		}
	}
	for _, name := range profiles {
		t.Rows = append(t.Rows, []string{
			name, number(median(puts[name], sample.speed)), number(median(puts[name], func(s sample) float64 { return s.a(s.kubo) })),
			number(median(colds[name], sample.speed)), number(median(warms[name], sample.speed)),
			number(float64(disks[name]) / 1e6), number(float64(memories[name]) / 1e6),
		})
	}
	return []Table{t}, nil
}

// kept is what became of a set in a datastore.
type kept struct {
	put, cold, warm sample
	disk, memory    int64
}

func (s *study) datastore(ctx context.Context, profile string) (got kept, err error) {
	l, err := s.open(ctx, 0)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return got, err
	}
	k, err := m.StartKubo(ctx, lab.KuboOptions{Profile: profile})
	if err != nil {
		return got, err
	}
	got.put, err = measure(k, func() (bytes, blocks int64, err error) {
		for _, b := range s.set.blocks {
			bytes += int64(len(b.Data))
		}
		return bytes, int64(len(s.set.blocks)), put(ctx, k.API, s.set.blocks)
	})
	if err != nil {
		return got, err
	}
	if got.memory, err = k.Peak(); err != nil {
		return got, err
	}
	if err := k.Stop(); err != nil {
		return got, err
	}
	if got.disk, err = onDisk(k.Repo); err != nil {
		return got, err
	}
	if err := dropCaches(); err != nil {
		return got, err
	}
	if err := k.Start(ctx); err != nil {
		return got, err
	}
	cids := leaves(s.set.files)
	if got.cold, err = pull(ctx, k.API, k, chosen, cids); err != nil {
		return got, err
	}
	got.warm, err = pull(ctx, k.API, k, chosen, cids)
	return got, err
}

// dropCaches has the kernel forget what it has read of disks.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200)
}

// onDisk is what a folder takes.
func onDisk(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes += stat.Blocks * 512
		}
		return nil
	})
	return bytes, err
}
