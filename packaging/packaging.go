// Package packaging holds what "make install" ships beside the programs. The lab runs
// containerd with it, so that it is what the tests have seen.
package packaging

import (
	_ "embed"
	"fmt"
	"strings"
)

// Paths in the configuration, as they are on a machine that ipcs is installed on.
const (
	socket = `"/run/ipcs/snapshotter.sock"`
	root   = `"/var/lib/ipcs"`
)

//go:embed containerd-config.toml
var containerd string

// Containerd returns the configuration of containerd for an ipcs-snapshotter that has
// its socket and root elsewhere.
func Containerd(socketPath, rootPath string) string {
	return strings.NewReplacer(socket, fmt.Sprintf("%q", socketPath), root, fmt.Sprintf("%q", rootPath)).Replace(containerd)
}
