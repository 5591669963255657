package system

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/hinshun/ipcs/internal/lab"
)

// erofs is containerd's own snapshotter and differ of that name: layers are downloaded
// whole, and each becomes a file with an EROFS image instead of a tree of files.
type erofs struct{}

// oldestMkfs is the first mkfs.erofs that has the options that containerd's
// documentation prefers, --sort=none among them.
const oldestMkfs = "1.8.2"

func (erofs) Name() string { return "erofs" }

func (erofs) About() string {
	return "containerd's erofs snapshotter and differ with gzip layers, as its documentation prefers it: " +
		"layers converted to EROFS on the consumer, mkfs.erofs with -T0 --mkfs-time --sort=none, no fs-verity"
}

func (erofs) Missing(ctx context.Context, programs Programs) string {
	path, err := programs("mkfs.erofs")
	if err != nil {
		return "no mkfs.erofs on PATH: install erofs-utils"
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	// mkfs.erofs 1.5, or mkfs.erofs (erofs-utils) 1.8.6; the former fails, as it knows no
	// --version, but says this before.
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	version := line[strings.LastIndex(line, " ")+1:]
	if !semver.IsValid("v" + version) {
		return fmt.Sprintf("mkfs.erofs --version says %q: %v", line, err)
	}
	if semver.Compare("v"+version, "v"+oldestMkfs) < 0 {
		return fmt.Sprintf("mkfs.erofs %s on PATH: containerd's erofs differ needs %s or newer for what its documentation prefers (Debian 13 has it)", version, oldestMkfs)
	}
	return ""
}

// Publish pushes the image as it is: the consumer converts it.
func (erofs) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	ref, err := site.Push(ctx, source.Image, "overlayfs")
	return &Image{Name: source.Image, Ref: ref}, err
}

func (erofs) Start(ctx context.Context, m *lab.Machine, root string, _ Options) (*Host, error) {
	h := &Host{Machine: m, Snapshotter: "erofs"}
	return h.start(ctx, root, lab.ContainerdOptions{Erofs: true})
}
