package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/command"
	"github.com/hinshun/ipcs/internal/convert"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// readManifest reads the manifest that a layout tags.
func readManifest(t *testing.T, dir, tag string) ocispec.Manifest {
	t.Helper()
	var index ocispec.Index
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			if m.MediaType == ocispec.MediaTypeImageIndex { // of the image and its seeds
				readJSON(t, filepath.Join(dir, "blobs/sha256", m.Digest.Encoded()), &index)
				m = index.Manifests[0]
			}
			var manifest ocispec.Manifest
			readJSON(t, filepath.Join(dir, "blobs/sha256", m.Digest.Encoded()), &manifest)
			return manifest
		}
	}
	t.Fatalf("%s has no %s", dir, tag)
	return ocispec.Manifest{}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// TestThereAndBack converts an image, verifies it and converts it back, as a user does.
func TestThereAndBack(t *testing.T) {
	image, dir := testImage(t, 3<<20), t.TempDir()
	repo := "--repo=" + dir + "/repo"
	out := "oci:" + dir + "/out"
	for _, args := range [][]string{
		{"--mediatype", "unixfs", "oci:" + image, out + ":ipcs"},
		{"--mediatype", "unixfs", "--keep-diff-ids", "oci:" + image, out + ":kept"},
		{"--mediatype", "tar", out + ":ipcs", out + ":tar"},
		{"--mediatype", "tar+gzip", out + ":ipcs", out + ":gzip"},
		{"--mediatype", "tar+zstd", out + ":kept", out + ":zstd"},
		{"--mediatype", "unixfs", out + ":gzip", out + ":again"},
	} {
		if stdout, stderr, code := runProgram(t, append([]string{repo}, args...)...); code != 0 || stderr == "" || !strings.Contains(stdout, out) {
			t.Fatalf("%q: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
	original := readManifest(t, image, "latest")
	for _, tag := range []string{"kept", "tar", "gzip", "zstd"} {
		if got := readManifest(t, dir+"/out", tag); got.Config.Digest != original.Config.Digest {
			t.Errorf("%s: config %s, the original's is %s", tag, got.Config.Digest, original.Config.Digest)
		}
	}
	if a, b := readManifest(t, dir+"/out", "ipcs"), readManifest(t, dir+"/out", "again"); a.Layers[0].Digest != b.Layers[0].Digest || a.Config.Digest != b.Config.Digest {
		t.Errorf("the image that came back converts to %+v, the original to %+v", b, a)
	}
	for _, tag := range []string{"ipcs", "kept", "again"} {
		stdout, stderr, code := runProgram(t, repo, "--verify", out+":"+tag)
		if code != 0 || !strings.Contains(stdout, "made from sha256:") || strings.Count(stdout, "gives the tar") != 2 {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", tag, code, stdout, stderr)
		}
	}
}

// TestVerifyBroken takes the content away and looks at what the user is told.
func TestVerifyBroken(t *testing.T) {
	image, dir := testImage(t, 1<<10), t.TempDir()
	out := "oci:" + dir + "/out:ipcs"
	if _, stderr, code := runProgram(t, "--repo="+dir+"/repo", "--mediatype", "unixfs", "oci:"+image, out); code != 0 {
		t.Fatal(stderr)
	}
	stdout, stderr, code := runProgram(t, "--repo="+dir+"/empty", "--verify", "--json", out)
	var report convert.VerifyReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("stdout %q: %v", stdout, err)
	}
	if code != 1 || !strings.Contains(stderr, "not proven") || len(report.Manifests) != 1 || report.Manifests[0].Layers[1].Error == "" {
		t.Errorf("exit code %d, stderr %q, report %+v", code, stderr, report)
	}
	if stdout, _, code = runProgram(t, "--repo="+dir+"/empty", "--verify", out); code != 1 || strings.Count(stdout, "NOT PROVEN") != 2 {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
}

// TestPrintable takes from messages what could steer a terminal.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"layer \x1b[2Jx\r":     `layer \x1b[2Jx\r`,
		"two\nlines, ö \u202e": "two\nlines, ö \\u202e",
		"it's \x00":            `it's \x00`,
	} {
		if got := command.Printable(text); got != want {
			t.Errorf("%q is printed as %q, want %q", text, got, want)
		}
	}
}
