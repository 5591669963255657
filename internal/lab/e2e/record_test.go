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

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// Files of the image that containers read before they are ready, and afterwards.
const (
	readBefore = "/etc/debian_version"
	readAfter  = "/etc/issue.net"
)

// serve is a program that reads readBefore and then listens on a port.
const serve = `import socket, sys, time
open("` + readBefore + `").read()
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))
s.listen()
time.sleep(1e6)
`

// TestProfileRecord records again and again what containers read until they are ready, in each
// way that this is told: what is read before that is in the profile, what is read afterwards
// is not.
func TestProfileRecord(t *testing.T) {
	w := newWorld(t, "record", 0)
	ref := w.convert(w.push(labtest.Image(t, "small")))
	w.pull(ref, "ipcs")
	r := &recorded{w: w, ref: ref, before: w.contentOf(ref, readBefore), after: w.contentOf(ref, readAfter)}
	t.Run("port", func(t *testing.T) { r.port(t, "own-net", "8080") })
	t.Run("port of the host", func(t *testing.T) { r.port(t, "host-net", "8080", "--net-host") })
	t.Run("log", r.log)
	t.Run("signal", r.signal)
	t.Run("not ready", r.notReady)
	t.Run("names", r.names)
}

// contentOf returns the CID of a file of the image.
func (w *world) contentOf(ref, path string) cid.Cid {
	w.t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, []byte(w.run("content"+strings.ReplaceAll(path, "/", "-"), ref, "ipcs", "cat", path)))
	w.must(err)
	return b.Cid
}

type recorded struct {
	w             *world
	ref           string
	before, after cid.Cid
}

// command is profile record for the image with these arguments, writing the profile to file.
func (r *recorded) command(t *testing.T, args ...string) (cmd *exec.Cmd, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "profile")
	return r.w.daemon.Command(t.Context(), append([]string{"profile", "record", "--output", file}, args...)...), file
}

// run is the command line that runs a program in a new container. The command finds containerd
// as ctr does.
func (r *recorded) run(cmd *exec.Cmd, name string, options, program []string) []string {
	ctr := r.w.containerd.Ctr(r.w.t.Context())
	cmd.Env = ctr.Env
	return slices.Concat([]string{"ctr", "run", "--snapshotter", "ipcs"}, options, []string{r.ref, r.w.id(name)}, program)
}

// check finds that a profile has the file that was read before the end and not the one that is
// read now, and that it is the image's now.
func (r *recorded) check(t *testing.T, file, name string) {
	t.Helper()
	if name != "" {
		c := &container{r.w, r.w.id(name)}
		if _, err := c.exec(t.Context(), "after", "cat", readAfter); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files, err := layer.DecodeProfile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(files, r.before) || slices.Contains(files, r.after) {
		t.Errorf("%d files; read before: %v, read afterwards: %v", len(files), slices.Contains(files, r.before), slices.Contains(files, r.after))
	}
	kept, err := lab.Output(r.w.daemon.Command(t.Context(), "profile", "export", "--namespace", lab.Namespace, r.ref))
	if err != nil || kept != string(b) {
		t.Errorf("the daemon has another profile, of %d bytes: %v", len(kept), err)
	}
}

// port records until the container listens.
func (r *recorded) port(t *testing.T, name, port string, options ...string) {
	cmd, file := r.command(t, "--port", port, r.ref, "--")
	cmd.Args = append(cmd.Args, r.run(cmd, name, append(options, "--detach"), []string{"python3", "-c", serve, port})...)
	if _, err := lab.Output(cmd); err != nil {
		t.Fatal(err)
	}
	r.check(t, file, name)
}

// log records until the container has written a line, which is passed on, and has the
// container read on when it is told to end.
func (r *recorded) log(t *testing.T) {
	const script = `trap 'cat ` + readAfter + `; exit 0' TERM; cat ` + readBefore + `; echo it is ready; while :; do sleep 0.05; done`
	cmd, file := r.command(t, "--log", "^it is re.dy$", "--")
	cmd.Args = append(cmd.Args, r.run(cmd, "log", []string{"--rm"}, []string{"sh", "-c", script})...)
	out, err := lab.Output(cmd)
	if err != nil || !strings.Contains(out, "it is ready\n") {
		t.Fatalf("%q, %v", out, err)
	}
	r.check(t, file, "")
}

// signal records a container that others start, until the command is interrupted.
func (r *recorded) signal(t *testing.T) {
	cmd, file := r.command(t)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	until := func(words string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), words) {
				return
			}
		}
		t.Fatalf("it never said %q", words)
	}
	until("waiting")
	c := r.w.start("signal", r.ref)
	until("recording container")
	if _, err := c.exec(t.Context(), "before", "cat", readBefore); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, said)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	r.check(t, file, "signal")
}

// notReady finds that what never becomes ready is an error, and changes nothing: also where another
// program listens on the port in the same network.
func (r *recorded) notReady(t *testing.T) {
	before, err := lab.Output(r.w.daemon.Command(t.Context(), "profile", "export"))
	if err != nil {
		t.Fatal(err)
	}
	status, err := r.w.daemon.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`/tcp/(\d+)`).FindStringSubmatch(status.Addrs[0])[1]
	for name, of := range map[string]struct {
		args, options, program []string
		want                   string
	}{
		"another-listens": {[]string{"--port", port, "--window", "1s"}, []string{"--net-host", "--detach"}, []string{"sleep", "infinity"}, "nothing listened on port " + port},
		"ended":           {[]string{"--port", "8080"}, []string{"--rm"}, []string{"cat", readAfter}, "removed before anything listened"},
		"failed":          {[]string{"--log", "ready"}, []string{"--rm"}, []string{"sh", "-c", "exit 3"}, "COMMAND ended before the recording: exit status 3"},
		"silent":          {[]string{"--log", "ready"}, []string{"--rm"}, []string{"cat", readAfter}, "no line of it matched"},
	} {
		cmd, file := r.command(t, append(of.args, "--")...)
		cmd.Args = append(cmd.Args, r.run(cmd, name, of.options, of.program)...)
		if _, err := lab.Output(cmd); err == nil || !strings.Contains(err.Error(), of.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s: a profile was written", name)
		}
	}
	after, err := lab.Output(r.w.daemon.Command(t.Context(), "profile", "export"))
	if err != nil || after != before {
		t.Errorf("the profile has changed: %v", err)
	}
}

// names gives a profile to an image by its name, and refuses names that are of none.
func (r *recorded) names(t *testing.T) {
	b, err := layer.EncodeProfile([]cid.Cid{r.after})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	profile := func(args ...string) (string, error) {
		return lab.Output(r.w.daemon.Command(t.Context(), append([]string{"profile"}, args...)...))
	}
	if _, err := profile("import", r.ref, file); err != nil {
		t.Fatal(err)
	}
	if got, err := profile("export", r.ref); err != nil || got != string(b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for name, want := range map[string]string{"no.such/image:1": "pull it first", strings.TrimSuffix(r.ref, "ipcs") + "latest": "pull it first"} {
		if _, err := profile("export", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ordinary := r.w.push(labtest.Image(t, "busybox"))
	r.w.pull(ordinary, "ipcs")
	if _, err := profile("export", ordinary); err == nil || !strings.Contains(err.Error(), "no ipcs layer") {
		t.Errorf("an ordinary image: %v", err)
	}
}
