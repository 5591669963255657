package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/nodes"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/profile/profiletest"
)

// beConvert in the environment makes the test binary the program itself.
const beConvert = "CONVERT_TEST_IS_CONVERT"

func TestMain(m *testing.M) {
	if os.Getenv(beConvert) != "" {
		main()
	}
	os.Exit(m.Run())
}

// command is the program with these arguments.
func cli(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), beConvert+"=1", "DOCKER_CONFIG="+t.TempDir())
	return cmd
}

// run runs the program to its end.
func runProgram(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := cli(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// testImage writes an image of two layers, the second with size incompressible bytes.
func testImage(t *testing.T, size int) string {
	t.Helper()
	random := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // never fails
	dir := filepath.Join(t.TempDir(), "image")
	_, err := images.Write(t.Context(), dir, images.Image{Layers: []images.Layer{
		{Tar: images.Tar(func(t *images.Tarball) { t.File("a", 0o644, "hello"); t.File("b", 0o600, "world") })},
		{Tar: images.Tar(func(t *images.Tarball) { t.File("c", 0o644, string(random)) })},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestConvertsIntoARepository(t *testing.T) {
	image, dir := "oci:"+testImage(t, 1<<20), t.TempDir()
	args := []string{"--mediatype", "unixfs", "--pprof", dir + "/profiles", "--repo", dir + "/repo", image, "oci:" + dir + "/out:ipcs"}
	stdout, stderr, code := runProgram(t, args...)
	if code != 0 || !strings.HasPrefix(stdout, "oci:"+dir+"/out:ipcs sha256:") {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for _, want := range []string{"layer 1/2 sha256:", "2 files", "1 files, 1.0 MiB in ", "seed of layer 2/2 sha256:"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr %q: want %q in it", stderr, want)
		}
	}
	profiletest.Check(t, dir+"/profiles")
	if n := strings.Count(stderr, "\n"); n != 8 {
		t.Errorf("%d lines for two layers: %q", n, stderr)
	}
	again, stderr, code := runProgram(t, append(args, "--json")...)
	var report convert.Report
	if err := json.Unmarshal([]byte(again), &report); err != nil || code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stdout %q (%v), stderr %q", code, again, err, stderr)
	}
	if !strings.HasSuffix(stdout, report.Digest.String()+"\n") {
		t.Errorf("the first time %q, the second %s", stdout, report.Digest)
	}
	for _, l := range report.Manifests[0].Layers {
		if !l.Reused || l.Cid == "" || l.Files == 0 {
			t.Errorf("layer %+v", l)
		}
	}
}

// TestConvertsToIPFS wants a CID on standard output, and what it leads to.
func TestConvertsToIPFS(t *testing.T) {
	image, dir := "oci:"+testImage(t, 1<<20), t.TempDir()
	args := []string{"--mediatype", "unixfs", "--repo", dir + "/repo", image, "ipfs:"}
	stdout, stderr, code := runProgram(t, args...)
	root := strings.TrimSuffix(stdout, "\n")
	if _, err := imagedir.ParseRoot(root); err != nil || code != 0 || !strings.Contains(stderr, "127.0.0.1:5050/ipfs/"+root+":latest") {
		t.Fatalf("exit code %d, stdout %q (%v), stderr %q", code, stdout, err, stderr)
	}
	again, stderr, code := runProgram(t, append(args, "--json")...)
	var report convert.Report
	if err := json.Unmarshal([]byte(again), &report); err != nil || code != 0 || stderr != "" || report.Cid != root || report.Target != "ipfs:"+root {
		t.Errorf("exit code %d, stdout %q (%v), stderr %q; want the CID %s", code, again, err, stderr, root)
	}
	stdout, stderr, code = runProgram(t, "--verify", "--repo", dir+"/repo", "ipfs:"+root)
	if code != 0 || strings.Count(stdout, "gives the tar") != 2 {
		t.Errorf("verify: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	stdout, stderr, code = runProgram(t, "--mediatype", "tar", "--repo", dir+"/repo", "ipfs:"+root, "oci:"+dir+"/again")
	if code != 0 || !strings.Contains(stdout, "sha256:") {
		t.Errorf("restore: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if before, after := readManifest(t, strings.TrimPrefix(image, "oci:"), "latest"), readManifest(t, dir+"/again", "latest"); before.Config.Digest != after.Config.Digest {
		t.Errorf("the config came back as %s, it was %s", after.Config.Digest, before.Config.Digest)
	}
}

func TestUsage(t *testing.T) {
	image := "oci:" + testImage(t, 1)
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "want SOURCE and TARGET"},
		{[]string{"--mediatype", "unixfs", image}, "want SOURCE and TARGET"},
		{[]string{"--no-such-flag", image, "x"}, "no-such-flag"},
		{[]string{"--mediatype", "blocks", image, "oci:x"}, "pass unixfs"},
		{[]string{image, "ipfs:"}, "pass --mediatype unixfs"},
		{[]string{"--fill", "true", image, "oci:x"}, "--mediatype unixfs"},
		{[]string{"--verify", image, "oci:x"}, "want REF"},
		{[]string{"--verify", "--mediatype", "tar", image}, "exclude each other"},
		{[]string{"--mediatype", "tar", "--keep-diff-ids", image, "oci:x"}, "--keep-diff-ids"},
		{[]string{"--mediatype", "unixfs", "--platform", "a/b/c/d/e", image, "oci:x"}, "a/b/c/d/e"},
		{[]string{"--mediatype", "unixfs", "--platform", "linux/amd64", "--all-platforms", image, "oci:x"}, "exclude each other"},
		{[]string{"--mediatype", "unixfs", "--repo", "a", "--ipfs-api", "b", image, "oci:x"}, "exclude each other"},
		{[]string{"--mediatype", "unixfs", "--peer-hint", "10.0.0.1", image, "oci:x"}, "10.0.0.1"},
		{[]string{"--mediatype", "unixfs", "--peer-hint", "/ip4/10.0.0.1/tcp/1", image, "oci:x"}, "/p2p/"},
		{[]string{"--mediatype", "unixfs", "--fill", "maybe", image, "oci:x"}, "true or false"},
		{[]string{"--mediatype", "tar", "--profile", "x", image, "oci:x"}, "--profile"},
		{[]string{"--mediatype", "unixfs", "--workers", "-1", image, "oci:x"}, "--workers"},
		{[]string{"--mediatype", "unixfs", "a//b", "oci:x"}, "a//b"},
		{[]string{"--mediatype", "tar", image, "ipfs:"}, "--mediatype unixfs"},
		{[]string{"--mediatype", "unixfs", image, "ipfs:app"}, "ipfs: and nothing more"},
		{[]string{"--verify", "ipfs:latest"}, "want ipfs:CID"},
	} {
		stdout, stderr, code := runProgram(t, c.args...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want 2 and %q", c.args, code, stdout, stderr, c.says)
		}
	}
	help, _, code := runProgram(t, "--help")
	if !strings.Contains(help, "allow_unverified_diff_ids") || strings.Contains(help, "(docs)") {
		t.Errorf("help does not say what --keep-diff-ids costs: %s", help)
	}
	if code != 0 || !strings.Contains(help, "convert --mediatype unixfs registry.example.com") {
		t.Errorf("--help: exit code %d, %q", code, help)
	}
}

func TestErrors(t *testing.T) {
	image, dir := "oci:"+testImage(t, 1), t.TempDir()
	locked, err := objects.Open(dir+"/locked", objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	cases := []struct{ node, source, says string }{
		{"--repo=" + dir + "/locked", image, "--ipfs-api"},
		{"--repo=" + dir + "/repo", "oci:" + dir + "/absent", "is no OCI layout"},
		{"--ipfs-api=/unix" + dir + "/absent.sock", image, dir + "/absent.sock"},
	}
	if _, err := os.Stat(nodes.DaemonSocket); err != nil {
		cases = append(cases, struct{ node, source, says string }{"--ipfs-api=", image, "start ipcs-snapshotter"})
	}
	for _, c := range cases {
		profiles := t.TempDir()
		stdout, stderr, code := runProgram(t, "--mediatype", "unixfs", "--pprof", profiles, c.node, c.source, "oci:"+dir+"/out")
		if code != 1 || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s %s: exit code %d, stdout %q, stderr %q; want 1 and %q", c.node, c.source, code, stdout, stderr, c.says)
		}
		profiletest.Check(t, profiles)
	}
	if _, err := os.Stat(dir + "/out/index.json"); err == nil {
		t.Error("a failed conversion tagged something")
	}
}

// A registry that stops in the middle of a layer, for the time that nobody interrupts.
func TestInterrupt(t *testing.T) {
	image, dir := testImage(t, 1<<20), t.TempDir()
	reading, done := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(stalling(t, image, reading, done))
	defer server.Close()
	defer close(done)
	cmd := cli(t, "--mediatype", "unixfs", "--repo", dir+"/repo", "--workers", "1", "--pprof", dir+"/interrupted",
		server.Listener.Addr().String()+"/app", "oci:"+dir+"/out")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reading
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("%v, stderr %q", err, stderr.String())
	}
	if _, err := os.Stat(dir + "/out/index.json"); err == nil {
		t.Error("an interrupted conversion tagged something")
	}
	profiletest.Check(t, dir+"/interrupted")
	// Nothing is in the way of the next one.
	if _, stderr, code := runProgram(t, "--mediatype", "unixfs", "--repo", dir+"/repo", "oci:"+image, "oci:"+dir+"/out"); code != 0 {
		t.Errorf("afterwards: exit code %d, %q", code, stderr)
	}
}

// stalling serves a layout as a registry would, but stops in the middle of large blobs.
func stalling(t *testing.T, layout string, reading, done chan struct{}) http.Handler {
	t.Helper()
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		top := index.Manifests[0]
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if name == "latest" || name == top.Digest.String() {
			name = top.Digest.String()
			w.Header().Set("Content-Type", top.MediaType)
			w.Header().Set("Docker-Content-Digest", name)
		}
		blob, err := os.ReadFile(filepath.Join(layout, "blobs/sha256", strings.TrimPrefix(name, "sha256:")))
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		if len(blob) < 1<<20 {
			_, _ = w.Write(blob) // the client sees it if this fails
			return
		}
		_, _ = w.Write(blob[:len(blob)/2])
		w.(http.Flusher).Flush()
		close(reading)
		<-done
	})
}

func TestFullDisk(t *testing.T) {
	hosttest.Root(t)
	image, dir := "oci:"+testImage(t, 8<<20), t.TempDir()
	small := t.TempDir()
	if err := unix.Mount("convert-test", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	}()
	stdout, stderr, code := runProgram(t, "--mediatype", "unixfs", "--repo", small+"/repo", image, "oci:"+dir+"/out")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if _, err := os.Stat(dir + "/out/index.json"); err == nil {
		t.Error("something was tagged")
	}
}

func TestBars(t *testing.T) {
	image, dir := "oci:"+testImage(t, 1<<20), t.TempDir()
	terminal, tty := openTerminal(t)
	cmd := cli(t, "--mediatype", "unixfs", "--repo", dir+"/repo", image, "oci:"+dir+"/out")
	cmd.Stderr = tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	// Reading a terminal that nobody has open any more is an error, and its end.
	shown, _ := io.ReadAll(terminal)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, shown)
	}
	for _, want := range []string{"layer 1/2", "layer 2/2", "2 files", "1 files, 1.0 MiB"} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("shown: %q; want %q in it", shown, want)
		}
	}
}

// openTerminal opens a pseudo terminal.
func openTerminal(t *testing.T) (terminal, tty *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	fd := int(terminal.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 120}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return terminal, tty
}
