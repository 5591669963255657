// Package system holds what is compared: each System is one way to bring an image from
// a registry into a container, behind four methods.
//
// A System publishes an image at a Site, which is the registry and a machine for
// whatever else serves images, and starts a Host, which is containerd with all that it
// needs on a consumer with nothing on its disk. The scenarios do the rest with stock
// commands. To compare with another snapshotter, write such an adapter (stargz.go is an
// example) and put it into All.
//
// Everything here is for one goroutine at a time, but that Hosts of different machines
// are independent of each other.
package system

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// A System is one way to distribute and mount images.
type System interface {
	// Name stands in results: letters, digits and hyphens.
	Name() string
	// About is one line for the document.
	About() string
	// Missing says why the system cannot be measured here, and is "" where it can.
	Missing(ctx context.Context, programs Programs) string
	// Publish puts an image of the lab where consumers get it from.
	Publish(ctx context.Context, site *Site, source Source) (*Image, error)
	// Start makes a host ready on a machine, in new folders whose names begin with root.
	// After an error nothing of it runs.
	Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error)
}

// Programs finds programs, first among the lab's own.
type Programs func(name string) (path string, err error)

// All returns every system, those that cannot be measured here too.
func All() []System {
	all := []System{
		overlayfs{"overlayfs", ""}, overlayfs{"overlayfs-zstd", "+zstd"}, erofs{},
		ipcs{}, profiled{}, filled{}, fetched{}, kubo{},
		seeded{name: "ipcs-registry"}, seeded{name: "ipcs-registry-profile", profile: true}, seeded{name: "ipcs-registry-fetch", fetches: true},
		seeded{name: "ipcs-either", peers: true}, seeded{name: "ipcs-either-fetch", peers: true, fetches: true},
		content{name: "content"}, content{name: "content-peers", peers: true},
		stargz{"stargz", false}, stargz{"stargz-optimized", true},
	}
	return append(all, fallbacks()...)
}

// Named returns the system of that name.
func Named(name string) (System, error) {
	for _, s := range All() {
		if s.Name() == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no system %q", name)
}

// A Source is an image of the lab that is to be published.
type Source struct {
	Image   string
	Command string // what will run in it first, for systems that order images by that
}

// An Image is what a consumer must know to get it.
type Image struct {
	Name string // of the lab's image
	Ref  string // in the registry
	// Peers are multiaddrs of the nodes that have its files, for systems that fetch from
	// elsewhere than the registry.
	Peers []string
}

// Registry returns the host:port of the image's registry.
func (i *Image) Registry() string {
	host, _, _ := strings.Cut(i.Ref, "/")
	return host
}

// Options say what a host is given.
type Options struct {
	Peers []string // Image.Peers of all that it will pull
	// Registry is the host:port of what it will pull, which speaks plain HTTP, for systems
	// that must be told. Image.Registry returns it.
	Registry string
	Profile  string // folder for profiles of the system's daemon; "" for none
}

// A Host is a consumer that is ready to pull.
type Host struct {
	Machine     *lab.Machine
	Containerd  *lab.Containerd
	Snapshotter string
	Daemon      *lab.Daemon    // of ipcs; nil for others
	Helpers     []*lab.Process // that belong to the system, Daemon's among them
	// Lazy says that content comes when it is read, and else all of it with the pull.
	Lazy bool
	// Fills says that what is Lazy comes by itself, too, as soon as there is a container.
	Fills bool
	// Fetches says that what is Lazy comes when the daemon is told to fetch it.
	Fetches bool
	// Hosts is the folder of what containerd is told of registries; "" if they are spoken to in plain HTTP, and that is all.
	Hosts string
	// Folders are removed when the host stops.
	Folders []string
}

// start starts containerd, the last part of a host, in a folder that is named after
// root. On an error it stops the host.
func (h *Host) start(ctx context.Context, root string, opts lab.ContainerdOptions) (*Host, error) {
	opts.Root = root + "-c"
	h.Folders = append(h.Folders, filepath.Join(h.Machine.Dir(), opts.Root))
	var err error
	if h.Containerd, err = h.Machine.StartContainerd(ctx, opts); err != nil {
		h.Containerd = nil // what is not ready has been ended
		return nil, errors.Join(err, h.Stop(ctx))
	}
	return h, nil
}

// Pull is the command that pulls an image.
func (h *Host) Pull(ctx context.Context, ref string) *exec.Cmd {
	how := []string{"--plain-http"}
	if h.Hosts != "" {
		how = []string{"--hosts-dir", h.Hosts}
	}
	return h.Containerd.Ctr(ctx, append(append([]string{"image", "pull", "--snapshotter", h.Snapshotter}, how...), ref)...)
}

// Run is the command that runs a shell's command line in a new container.
func (h *Host) Run(ctx context.Context, ref, id, command string) *exec.Cmd {
	return h.Containerd.Shell(ctx, fmt.Sprintf("ctr run --rm --snapshotter %s %s %s %s", h.Snapshotter, ref, id, command))
}

// Usage is what the host's programs took since they were started.
type Usage struct {
	CPU       time.Duration // of containerd and the system's daemons
	DaemonCPU time.Duration // of the daemons alone
	Resident  int64         // of the system's daemons now, in bytes; 0 where there is none
	Peak      int64         // the highest of those so far
	PeakAll   int64         // the same with containerd
}

// Usage reads it.
func (h *Host) Usage() (Usage, error) {
	var u Usage
	cpu, err1 := h.Containerd.CPU()
	peak, err2 := h.Containerd.Peak()
	if err := errors.Join(err1, err2); err != nil {
		return u, err
	}
	u.CPU = cpu
	for _, p := range h.Helpers {
		cpu, err1 := p.CPU()
		now, err2 := p.Resident()
		peak, err3 := p.Peak()
		if err := errors.Join(err1, err2, err3); err != nil {
			return u, err
		}
		u.DaemonCPU, u.Resident, u.Peak = u.DaemonCPU+cpu, u.Resident+now, u.Peak+peak
	}
	u.CPU += u.DaemonCPU
	u.PeakAll = peak + u.Peak
	return u, nil
}

// Tail is the end of the host's logs, for an error.
func (h *Host) Tail() string {
	text := "\n" + h.Containerd.Tail()
	for _, p := range h.Helpers {
		text += "\n" + p.Tail()
	}
	return text
}

// Stop ends the host's processes, containerd first, and removes its folders. It goes on
// when ctx has ended.
func (h *Host) Stop(ctx context.Context) error {
	var errs []error
	if h.Containerd != nil {
		errs = append(errs, h.Containerd.Stop(ctx))
	}
	for _, p := range h.Helpers {
		errs = append(errs, p.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		return err // what still runs may have mounts below the folders
	}
	for _, f := range h.Folders {
		if err := remove(f); err != nil {
			return err
		}
	}
	return nil
}
