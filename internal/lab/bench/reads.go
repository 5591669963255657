package bench

import (
	"context"
	"errors"
	"fmt"
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
	{"find -ls", list},
	{"12,000 small files", func(root string) error { return readAll(filepath.Join(root, "small")) }},
	{"one large file", func(root string) error { return readAll(filepath.Join(root, "large")) }},
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
		first, again, err := measureRead(ctx, c, refs, max(rounds, warmRounds), read.do)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", read.name, err)
		}
		first.Name, again.Name = read.name+", a container's first", read.name+", again"
		results = append(results, first, again)
	}
	return results, nil
}

// measureRead reads twice in each of many new mounts. The first time, the kernel finds
// for each file where its data is; the page cache is warm both times.
func measureRead(ctx context.Context, c *lab.Containerd, refs map[string]string, rounds int, read func(string) error) (first, again Result, err error) {
	took := map[string]*[2][]time.Duration{"overlayfs": {}, "ipcs": {}}
	for i := range rounds + 1 {
		for snapshotter, ref := range refs {
			d, err := readTwice(ctx, c, ref, snapshotter, read)
			if err != nil {
				return first, again, err
			}
			if i > 0 { // the first round warms the page cache
				took[snapshotter][0] = append(took[snapshotter][0], d[0])
				took[snapshotter][1] = append(took[snapshotter][1], d[1])
			}
		}
	}
	overlayfs, ipcs := took["overlayfs"], took["ipcs"]
	first = Result{Base: median(overlayfs[0]), New: median(ipcs[0]), Limit: 1.05}
	again = Result{Base: median(overlayfs[1]), New: median(ipcs[1]), Limit: 1.05}
	return first, again, nil
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

// readTwice times two reads in a mount that nobody has read from.
func readTwice(ctx context.Context, c *lab.Containerd, ref, snapshotter string, read func(string) error) (took [2]time.Duration, err error) {
	v, err := c.Writable(ctx, ref, snapshotter)
	if err != nil {
		return took, err
	}
	for i := range took {
		start := time.Now()
		if err := read(v.Root); err != nil {
			return took, errors.Join(err, v.Close(ctx))
		}
		took[i] = time.Since(start)
	}
	return took, v.Close(ctx)
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
