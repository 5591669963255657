package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// diskUsage returns what folders take on their disks, in bytes: the blocks of every
// inode, once, as du(1) counts them with -x. What is mounted below a folder is on another
// device and is not gone into: a container's file system is not its host's disk. What
// disappears meanwhile is not counted.
func diskUsage(ctx context.Context, folders ...string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var bytes int64
	for _, folder := range folders {
		var root *syscall.Stat_t
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var info fs.FileInfo
			if err == nil {
				info, err = d.Info()
			}
			if errors.Is(err, fs.ErrNotExist) && path != folder {
				return nil
			}
			if err != nil {
				return err
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return fmt.Errorf("%s: no inode", path)
			}
			if root == nil {
				root = st
			}
			if st.Dev != root.Dev {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			id := inode{st.Dev, st.Ino}
			if !seen[id] {
				seen[id] = true
				bytes += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("disk usage of %s: %w", folder, err)
		}
	}
	return bytes, nil
}
