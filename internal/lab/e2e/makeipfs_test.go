package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// TestMakeIPFS does what "make ipfs" prints, and finds the same content when it runs again.
func TestMakeIPFS(t *testing.T) {
	labtest.Tools(t, append(tools.Kubo, tools.Lab...)...)
	labtest.Build(t)
	image := labtest.Image(t, "busybox")
	cache := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(filepath.Join(labtest.Cache(t), "bin"), filepath.Join(cache, "bin")))
	bin := filepath.Join(labtest.Project(t), "bin")
	program := filepath.Join(cache, "lab")
	_, err := lab.Output(exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/lab"))
	must(err)

	var pins []string
	for _, api := range []string{filepath.Join(cache, "ipfs"), "auto"} {
		cmd := exec.CommandContext(t.Context(), program, "ipfs", "-cache", cache, "-bin", bin)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(err)
		must(cmd.Start())
		said := readUntil(t, out, "Ctrl-C")
		repo := regexp.MustCompile(`kubo = "(.*)"`).FindStringSubmatch(said)
		if repo == nil || repo[1] != filepath.Join(cache, "ipfs") {
			t.Fatalf("it prints\n%s", said)
		}
		output := func(name string, args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), name, args...)
			cmd.Env = append(os.Environ(), "IPFS_PATH="+repo[1])
			out, err := lab.Output(cmd)
			must(err)
			return out
		}
		output(filepath.Join(bin, "convert"), "--mediatype", "unixfs", "--ipfs-api", api, "oci:"+image, "oci:"+filepath.Join(cache, "image")+":ipcs")
		ipfs := filepath.Join(cache, "bin", "ipfs")
		listed := strings.Split(output(ipfs, "pin", "ls", "--names", "--type=recursive"), "\n")
		slices.Sort(listed) // Kubo lists them in any order
		pins = append(pins, strings.Join(listed, "\n"))
		if found := output(ipfs, "swarm", "peers"); found != "" {
			t.Errorf("it has the peers %q", found)
		}
		must(cmd.Process.Signal(syscall.SIGINT))
		_, _ = io.Copy(io.Discard, out)
		must(cmd.Wait())
	}
	if pins[0] != pins[1] || !strings.Contains(pins[0], "ipcs:unixfs-v1:") {
		t.Errorf("pinned at first\n%s\nand then\n%s", pins[0], pins[1])
	}
}

// readUntil reads lines until one has the words.
func readUntil(t *testing.T, r io.Reader, words string) string {
	t.Helper()
	var said strings.Builder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), words) {
			return said.String()
		}
	}
	t.Fatalf("it ends after\n%s", said.String())
	return ""
}
