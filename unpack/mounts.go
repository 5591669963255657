//go:build linux

package unpack

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/userns"
)

// A stack is what one mount shows: directories that lie on each other.
type stack struct {
	upper   string   // where changes go; empty if they go nowhere
	dirs    []string // below it, the uppermost first
	data    []string // data-only layers below those: no paths of theirs are shown
	overlay bool
	options []string
}

// stackOf reads the directories of an overlay or a bind mount from its options. Mounts that
// are of another type, or several, are no stack.
func stackOf(mounts []mount.Mount) (stack, bool) {
	mounts = slices.DeleteFunc(slices.Clone(mounts), isNothing)
	if len(mounts) != 1 || mounts[0].Target != "" {
		return stack{}, false
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		return stack{dirs: []string{m.Source}, options: m.Options}, true
	case "overlay":
		s := stack{overlay: true, options: m.Options}
		for _, o := range m.Options {
			if value, ok := strings.CutPrefix(o, "upperdir="); ok {
				s.upper = value
			} else if value, ok := strings.CutPrefix(o, "lowerdir="); ok {
				s.dirs, s.data = splitLower(value)
			}
		}
		return s, true
	}
	return stack{}, false
}

// isNothing says whether a mount is the remount without a change that our snapshotter puts
// behind an overlay. Nothing is mounted for it.
func isNothing(m mount.Mount) bool {
	return m.Type == "none" && slices.Equal(m.Options, []string{"remount"})
}

// splitLower splits the option lowerdir: what follows a double colon is data-only.
func splitLower(value string) (dirs, data []string) {
	shown, rest, _ := strings.Cut(value, "::")
	if shown != "" {
		dirs = strings.Split(shown, ":")
	}
	for _, d := range strings.Split(rest, ":") {
		if d != "" {
			data = append(data, d)
		}
	}
	return dirs, data
}

// A target is a directory that a layer is unpacked into.
type target struct {
	dir     string
	overlay bool     // it is an upper directory: whiteouts and marks are made, as overlayfs has them
	lower   []string // the directories below an upper one, the uppermost first
}

// withTarget calls fn with what a layer for these mounts is unpacked into. As containerd
// does, it writes straight into the upper directory of an overlay, which costs no copy of
// the directories below, and mounts anything else. In a user namespace no whiteouts can be
// made, so that there the overlay is mounted, too.
func withTarget(ctx context.Context, mounts []mount.Mount, fn func(target) error) error {
	s, ok := stackOf(mounts)
	if ok && s.overlay && s.upper != "" && !userns.RunningInUserNS() {
		return fn(target{dir: s.upper, overlay: true, lower: s.dirs})
	}
	return mount.WithTempMount(ctx, mounts, func(dir string) error {
		return fn(target{dir: dir})
	})
}
