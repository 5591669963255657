package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A dockerfile is a recipe of shell commands on top of another image, one layer each.
// They run in a chroot on an overlay, and the overlay's upper directory becomes the
// layer.
type dockerfile struct {
	steps  []string
	config ocispec.ImageConfig
}

func (d dockerfile) make(ctx context.Context, j job) error {
	base := filepath.Join(j.work, "0")
	j.log("unpacking the image below")
	if err := j.from.unpack(ctx, base); err != nil {
		return err
	}
	img := Image{From: j.from, Config: d.config}
	lower := base
	for i, step := range d.steps {
		j.log("%s", step)
		upper := filepath.Join(j.work, fmt.Sprint(i+1))
		if err := runStep(ctx, j.work, lower, upper, step); err != nil {
			return err
		}
		img.Layers = append(img.Layers, Layer{
			CreatedBy: "/bin/sh -c " + step,
			Tar:       func(w io.Writer) error { return writeUpper(ctx, w, base, upper) },
		})
		lower = upper + ":" + lower
	}
	j.log("writing layers")
	return j.write(ctx, img)
}

// script runs a step: $1 is the overlay's options, $2 its mount point, $3 the step.
const script = `set -e
mount -t overlay overlay -o "$1" "$2"
mount -t proc proc "$2/proc"
mount -t sysfs -o ro sysfs "$2/sys"
mount --bind /dev "$2/dev"
if [ -e /etc/resolv.conf ]; then [ -e "$2/etc/resolv.conf" ] || : >"$2/etc/resolv.conf"; mount --bind /etc/resolv.conf "$2/etc/resolv.conf"; fi
exec chroot "$2" /usr/bin/env -i DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
	PATH=/usr/sbin:/usr/bin:/sbin:/bin ${http_proxy:+http_proxy="$http_proxy"} sh -c "$3"
`

// runStep runs a step on an overlay over lower, which leaves its changes in upper.
func runStep(ctx context.Context, work, lower, upper, step string) error {
	merged, scratch := filepath.Join(work, "merged"), upper+".work"
	for _, d := range []string{merged, upper, scratch} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// Without these options, the kernel may leave what only it can read in upper.
	options := "index=off,metacopy=off,redirect_dir=off,lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + scratch
	if err := runAlone(ctx, "sh", "-c", script, "step", options, merged, step); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return os.RemoveAll(scratch)
}

// runAlone runs a command whose mounts and processes go with it, also when it or this
// program is killed: they are in namespaces of their own.
func runAlone(ctx context.Context, command ...string) error {
	args := append([]string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"}, command...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// writeUpper writes an overlay's upper directory as a layer.
func writeUpper(ctx context.Context, w io.Writer, lower, upper string) error {
	cw := archive.NewChangeWriter(w, upper)
	if err := fs.DiffDirChanges(ctx, lower, upper, fs.DiffSourceOverlayFS, cw.HandleChange); err != nil {
		return err
	}
	return cw.Close()
}
