package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/compare"
)

// beCompare in the environment makes the test binary the program itself.
const beCompare = "COMPARE_TEST_IS_COMPARE"

func TestMain(m *testing.M) {
	if os.Getenv(beCompare) != "" {
		main()
	}
	os.Exit(m.Run())
}

// runProgram runs the program to its end.
func runProgram(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), beCompare+"=1", "XDG_CACHE_HOME="+t.TempDir(), "DOCKER_CONFIG="+t.TempDir())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// empty is an image without a layer.
func empty(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(text string) string {
		d := digest.FromString(text)
		path := filepath.Join(dir, "blobs", "sha256", d.Encoded())
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`"digest":%q,"size":%d`, d, len(text))
	}
	config := put(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	manifest := put(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + config + `},"layers":[]}`)
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",` + manifest + `,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`
	for name, text := range map[string]string{"index.json": index, "oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return "oci:" + dir
}

// TestExitCodes says what each kind of error ends with, and what it says.
func TestExitCodes(t *testing.T) {
	image, none := empty(t), "oci:"+t.TempDir()
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "no image is named"},
		{[]string{"--json", "--csv", image}, 2, "exclude each other"},
		{[]string{"--nothing", image}, 2, "--help"},
		{[]string{"--html", "--json", image}, 2, "name of a file"},
		{[]string{"--html", "", image}, 2, "name of a file"},
		{[]string{"oci:"}, 2, "want oci:DIR"},
		{[]string{"--platform", "?", image}, 2, "platform"},
		{[]string{"--html", filepath.Join(t.TempDir(), "no", "where.html"), image}, 1, "--html"},
		{[]string{image, none}, 1, none},
		{[]string{"--keep-going", image, none}, 1, "left out"},
		{[]string{"ipfs:bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34"}, 1, "ipcs-snapshotter"},
		{[]string{"--html", os.DevNull, image, image}, 0, ""},
		{[]string{"--help"}, 0, ""},
	} {
		_, stderr, code := runProgram(t, tt.args...)
		if code != tt.code || !strings.Contains(stderr, tt.says) {
			t.Errorf("compare %q: %d\n%s", tt.args, code, stderr)
		}
	}
}

// TestOutputs writes the report in each form, and the page to where it is wanted.
func TestOutputs(t *testing.T) {
	image, dir := empty(t), t.TempDir()
	page, link := filepath.Join(dir, "report.html"), filepath.Join(dir, "link.html")
	if err := os.Symlink("report.html", link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := runProgram(t, "--json", "--html", link, image, image)
	var report compare.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || len(report.Images) != 2 || report.Schema != compare.Schema {
		t.Errorf("%d, %v\n%s%s", code, err, stdout, stderr)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "</html>") {
		t.Errorf("what the link leads to: %v", err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is none any more")
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode()&os.ModeCharDevice == 0 || info.Sys().(*syscall.Stat_t).Rdev == 0 {
		t.Error("the null device is none any more")
	}
	if files, err := filepath.Glob(filepath.Join(dir, ".compare-*")); err != nil || len(files) > 0 {
		t.Errorf("left are %q, %v", files, err)
	}
	if stdout, _, code := runProgram(t, "--csv", image, image); code != 0 || strings.Count(stdout, "\n") != 1+2*len(report.Levels) {
		t.Errorf("%d: %s", code, stdout)
	}
	if stdout, stderr, code := runProgram(t, image); code != 0 || !strings.Contains(stdout, "What they share") || !strings.Contains(stderr, "known") {
		t.Errorf("%d: %s%s", code, stdout, stderr)
	}
}
