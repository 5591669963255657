// Package packaging holds what "make install" ships beside the programs. The lab runs
// containerd with it, so that it is what the tests have seen.
package packaging

import (
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"
)

// Paths in the configuration, as they are on a machine that ipcs is installed on.
const (
	socket = `"/run/ipcs/snapshotter.sock"`
	diff   = `"/run/ipcs/diff.sock"`
	blobs  = `"/run/ipcs/content.sock"`
	root   = `"/var/lib/ipcs"`
)

//go:embed containerd-config.toml
var containerd string

//go:embed containerd-unpack.toml
var unpack string

//go:embed containerd-content.toml
var content string

//go:embed hosts.toml
var hosts string

//go:embed mirror.toml
var mirror string

// Host is what images that come from the daemon's own registry are named by, and registry is
// where hosts.toml finds that.
const (
	Host     = "ipfs.localhost"
	registry = "127.0.0.1:5050"
)

//go:embed ipcs-rootless
var rootless string

// Rootless returns the program that runs containerd and ipcs without root rights.
func Rootless() string { return rootless }

// Unpack returns the configuration, in addition to that of Containerd, of a containerd that
// unpacks ipcs images on snapshotters that mount nothing lazily.
func Unpack() string { return unpack }

// Content returns the configuration, in addition to that of Containerd, of a containerd whose content is in the content store of a daemon that has
// this socket for it.
func Content(socketPath string) string {
	return strings.ReplaceAll(content, blobs, fmt.Sprintf("%q", socketPath))
}

// Hosts returns containerd's configuration of the registry Host, for a daemon whose registry
// has this address.
func Hosts(address string) string { return strings.ReplaceAll(hosts, registry, address) }

// Mirror returns containerd's configuration of all registries, for a daemon whose registry has this address: what others have of
// their images comes from there.
func Mirror(address string) string { return strings.ReplaceAll(mirror, registry, address) }

// Installed returns the configuration of containerd as it is installed.
func Installed() string { return containerd }

// Containerd returns the configuration of containerd for an ipcs-snapshotter that has
// its sockets, of which that of the snapshotter is named, and root elsewhere.
func Containerd(socketPath, rootPath string) string {
	diffPath := filepath.Join(filepath.Dir(socketPath), "diff.sock")
	return strings.NewReplacer(
		socket, fmt.Sprintf("%q", socketPath),
		diff, fmt.Sprintf("%q", diffPath),
		root, fmt.Sprintf("%q", rootPath),
	).Replace(containerd)
}
