package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestReboot starts containers of an image that is all here, after everything on the machine
// has ended, with no peer and no registry. What a boot leaves is played: mounts and sockets
// are gone, and the images of chains are of another boot.
func TestReboot(t *testing.T) {
	w := newWorld(t, "reboot", 2*time.Second)
	host := w.consumer("host", lab.DaemonOptions{Fill: "on", Timeout: 2 * time.Second, Limit: 8 << 30})
	ref := w.convert(w.push(labtest.Image(t, "small")))
	host.pull(ref, "ipcs")
	_, err := lab.Output(host.containerd.Ctr(t.Context(), "container", "create", "--snapshotter", "ipcs", ref, w.id("before"), "sh", "-c", hashAll))
	w.must(err)
	host.until("all files come", func(s *lab.Status) bool {
		return len(s.Chains) == 1 && s.Chains[0].Files > 0 && s.Chains[0].LocalFiles == s.Chains[0].Files
	})
	w.must(host.containerd.Stop(t.Context()))
	w.must(host.daemon.Abort())
	w.must(w.source.Stop())
	w.must(w.registry.Stop())
	boot := filepath.Join(host.daemon.Root(), "snapshotter", "chains", "boot")
	if _, err := os.Stat(boot); err != nil {
		t.Fatal(err)
	}
	w.must(os.WriteFile(boot, []byte("another"), 0o600))

	w.must(host.daemon.Start(t.Context()))
	host.containerd, err = host.consume.StartContainerd(t.Context(), lab.ContainerdOptions{Daemon: host.daemon})
	w.must(err)
	_, err = lab.Output(host.containerd.Ctr(t.Context(), "task", "start", w.id("before")))
	w.must(err)
	if out := host.run("after", ref, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
		t.Errorf("output %q", out)
	}
	status, err := host.daemon.Status(t.Context())
	w.must(err)
	if status.Lazy.Reads > 0 {
		t.Errorf("FUSE: %d reads of what is on disk", status.Lazy.Reads)
	}
}
