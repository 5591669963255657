package bench

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// warmRounds are more than the slow measurements have: each takes part of a second.
const warmRounds = 21

// reads are the ways to read a tree that are measured.
var reads = []struct {
	name string
	do   func(root string) error
}{
	{"find -ls, warm, against overlayfs", list},
	{"12,000 small files, warm, against overlayfs", func(root string) error { return readAll(filepath.Join(root, "small")) }},
	{"one large file, warm, against overlayfs", func(root string) error { return readAll(filepath.Join(root, "large")) }},
}

// measureReads reads an image in fresh mounts, in turns with overlayfs.
func measureReads(ctx context.Context, m *lab.Machine, layout string, rounds int) (_ []Result, err error) {
	c, refs, err := pullBoth(ctx, m, layout)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()
	var results []Result
	for _, read := range reads {
		took := map[string][]time.Duration{}
		for i := range max(rounds, warmRounds) + 1 {
			for snapshotter, ref := range refs {
				d, err := measureRead(ctx, c, ref, snapshotter, read.do)
				if err != nil {
					return nil, err
				}
				if i > 0 { // the first round warms the caches
					took[snapshotter] = append(took[snapshotter], d)
				}
			}
		}
		results = append(results, Result{
			Name: read.name, Base: median(took["overlayfs"]), New: median(took["ipcs"]), Limit: 1.05,
		})
	}
	return results, nil
}

// pullBoth converts the image on the machine's own daemon, so that every file is there,
// and pulls it with both snapshotters.
func pullBoth(ctx context.Context, m *lab.Machine, layout string) (*lab.Containerd, map[string]string, error) {
	registry, err := m.StartRegistry(ctx)
	if err != nil {
		return nil, nil, err
	}
	daemon, err := m.StartDaemon(ctx, lab.DaemonOptions{})
	if err != nil {
		return nil, nil, err
	}
	name := registry.Addr + "/files"
	refs := map[string]string{"overlayfs": name + ":latest", "ipcs": name + ":ipcs"}
	if _, err := images.Copy(ctx, "oci:"+layout, refs["overlayfs"], m.HTTPClient()); err != nil {
		return nil, nil, err
	}
	if _, err := lab.Output(m.Command(ctx, "convert", "--mediatype", "unixfs", "--plain-http",
		"--ipfs-api", daemon.API, refs["overlayfs"], refs["ipcs"])); err != nil {
		return nil, nil, err
	}
	c, err := m.StartContainerd(ctx, lab.ContainerdOptions{Daemon: daemon})
	if err != nil {
		return nil, nil, err
	}
	for snapshotter, ref := range refs {
		if _, err := lab.Output(c.Ctr(ctx, "image", "pull", "--plain-http", "--snapshotter", snapshotter, ref)); err != nil {
			return nil, nil, err
		}
	}
	return c, refs, nil
}

// measureRead times one read in a mount that nobody has read from.
func measureRead(ctx context.Context, c *lab.Containerd, ref, snapshotter string, read func(string) error) (time.Duration, error) {
	v, err := c.Writable(ctx, ref, snapshotter)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	err = read(v.Root)
	d := time.Since(start)
	return d, errors.Join(err, v.Close(ctx))
}

// list does what find -ls does, and is that.
func list(root string) error { return exec.Command("find", root, "-ls").Run() }

// readAll reads every file below root.
func readAll(root string) error {
	buf := make([]byte, 1<<20)
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		return err
	})
}

// timed runs a command and says how long it took.
func timed(cmd *exec.Cmd) (time.Duration, error) {
	start := time.Now()
	_, err := lab.Output(cmd)
	return time.Since(start), err
}
