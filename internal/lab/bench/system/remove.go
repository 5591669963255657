package system

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/errgroup"
)

// removers is how many folders lose their files at once. Most of the time goes by while
// the disk is waited for.
const removers = 8

// remove removes a folder with all below it, of which nothing may be mounted: that would
// be emptied too.
func remove(folder string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(folder))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("remove %s: %s is still mounted (%s)", folder, mounts[0].Mountpoint, mounts[0].FSType)
	}
	// Files first, in many folders at once. What fails here fails again below.
	var group errgroup.Group
	group.SetLimit(removers)
	_ = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			group.Go(func() error {
				removeFiles(path)
				return nil
			})
		}
		return nil
	})
	_ = group.Wait()
	return os.RemoveAll(folder)
}

// removeFiles removes what can be removed of a folder and is no folder.
func removeFiles(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() {
			_ = os.Remove(filepath.Join(folder, e.Name()))
		}
	}
}
