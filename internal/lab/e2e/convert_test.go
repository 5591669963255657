package e2e

import (
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestConvertInContainerd converts what containerd has into what containerd has, with no
// registry in between, and runs it at once.
func TestConvertInContainerd(t *testing.T) {
	w := newWorld(t, "inplace", 0)
	ref := w.push(labtest.Image(t, "small"))
	w.pull(ref, "overlayfs")
	const target = "ipcs.example/debian:converted"
	for range 2 { // the second time everything is there
		_, err := lab.Output(w.consume.Command(t.Context(), "convert", "--mediatype", "unixfs",
			"--ipfs-api", w.daemon.API, "--containerd-address", w.containerd.Address, "containerd:"+ref, "containerd:"+target))
		w.must(err)
	}
	output := w.run("c", target, "ipcs", "cat", "/etc/os-release")
	if !strings.Contains(output, "ID=debian") {
		t.Errorf("output %q", output)
	}
}
