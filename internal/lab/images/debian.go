package images

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab/tools"
)

// The steps of a Dockerfile that makes the demo's image, one layer each. They run in
// a chroot on an overlay, and the overlay's upper directory becomes the layer.
var debianSteps = []string{
	"apt-get update && apt-get install -y --no-install-recommends python3 python3-pip && apt-get clean",
	"rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old",
}

// script runs a step: $1 is the overlay's options, $2 its mount point, $3 the step.
// The mounts are in a namespace of their own and go with it.
const script = `set -e
mount -t overlay overlay -o "$1" "$2"
mount -t proc proc "$2/proc"
mount -t sysfs -o ro sysfs "$2/sys"
mount --bind /dev "$2/dev"
if [ -e /etc/resolv.conf ]; then [ -e "$2/etc/resolv.conf" ] || : >"$2/etc/resolv.conf"; mount --bind /etc/resolv.conf "$2/etc/resolv.conf"; fi
exec chroot "$2" /usr/bin/env -i DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
	PATH=/usr/sbin:/usr/bin:/sbin:/bin ${http_proxy:+http_proxy="$http_proxy"} sh -c "$3"
`

// makeDebian makes a Debian of the release that this machine runs, with Python, from
// Debian's packages and with Debian's tools.
func makeDebian(ctx context.Context, dir string, log func(string, ...any)) error {
	if err := tools.Packages(ctx, map[string]string{"mmdebstrap": "mmdebstrap"}); err != nil {
		return err
	}
	work := dir + ".work"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	base := filepath.Join(work, "0")
	if err := bootstrap(ctx, base, log); err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	img := Image{
		Layers: []Layer{{
			CreatedBy: "mmdebstrap --variant=minbase",
			Tar:       func(w io.Writer) error { return archive.WriteDiff(ctx, w, "", base) },
		}},
		Config: ocispec.ImageConfig{Cmd: []string{"python3"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
	}
	lower := base
	for i, step := range debianSteps {
		log("debian: %s", step)
		upper := filepath.Join(work, fmt.Sprint(i+1))
		below := lower
		if err := runStep(ctx, work, below, upper, step); err != nil {
			return errors.Join(err, os.RemoveAll(work))
		}
		img.Layers = append(img.Layers, Layer{
			CreatedBy: "/bin/sh -c " + step,
			Tar:       func(w io.Writer) error { return writeUpper(ctx, w, base, upper) },
		})
		lower = upper + ":" + below
	}
	log("debian: writing layers")
	_, err := Write(ctx, dir, img)
	return errors.Join(err, os.RemoveAll(work))
}

// bootstrap makes the base system in dir.
func bootstrap(ctx context.Context, dir string, log func(string, ...any)) error {
	mirror, suite, err := mirror()
	if err != nil {
		return err
	}
	log("debian: mmdebstrap --variant=minbase %s", suite)
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
		`--aptopt=Acquire::Languages "none"`, suite, dir, "deb "+mirror+" "+suite+" main")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return nil
}

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
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private",
		"sh", "-c", script, "step", options, merged, step)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", step, err, out)
	}
	return os.RemoveAll(scratch)
}

// writeUpper writes an overlay's upper directory as a layer.
func writeUpper(ctx context.Context, w io.Writer, lower, upper string) error {
	cw := archive.NewChangeWriter(w, upper)
	if err := fs.DiffDirChanges(ctx, lower, upper, fs.DiffSourceOverlayFS, cw.HandleChange); err != nil {
		return err
	}
	return cw.Close()
}

// mirror returns the mirror that this machine's apt uses, and its release.
func mirror() (url, suite string, err error) {
	if suite, err = release(); err != nil {
		return "", "", err
	}
	lists, err := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	if err != nil {
		return "", "", err
	}
	for _, file := range append(lists, "/etc/apt/sources.list") {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if url := findMirror(text, suite); url != "" {
			return url, suite, nil
		}
	}
	return "", "", fmt.Errorf("no mirror for %s in /etc/apt/sources.list or /etc/apt/sources.list.d", suite)
}

// oneLine is a source in apt's older format: deb [options] URI SUITE COMPONENTS.
var oneLine = regexp.MustCompile(`^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s`)

// findMirror looks for the first source of the suite itself, in either of apt's two
// formats.
func findMirror(text []byte, suite string) string {
	var uri string
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0:
			uri = ""
		case fields[0] == "URIs:" && len(fields) > 1:
			uri = fields[1]
		case fields[0] == "Suites:" && uri != "":
			if slices.Contains(fields[1:], suite) {
				return resolveMirror(uri)
			}
		default:
			if m := oneLine.FindStringSubmatch(lines.Text()); m != nil && m[2] == suite {
				return resolveMirror(m[1])
			}
		}
	}
	return ""
}

// resolveMirror follows apt's "mirror+file:" to the first mirror in that file.
func resolveMirror(uri string) string {
	file, ok := strings.CutPrefix(uri, "mirror+file:")
	if !ok {
		return strings.TrimSuffix(uri, "/")
	}
	text, err := os.ReadFile(file)
	if err != nil || len(strings.Fields(string(text))) == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.Fields(string(text))[0], "/")
}

// release returns the code name of the Debian that this machine runs.
func release() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release names no release (VERSION_CODENAME): the demo's image needs a Debian machine; name another image with IMAGE=")
}
