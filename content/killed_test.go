package content_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// killedEnv has the process of a test be the one that is killed.
const killedEnv = "IPCS_TEST_KILLED"

// TestKilled kills a process that ingests, again and again, at any moment: what was committed is there, what was not can go on, and nothing else is.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedEnv); dir != "" {
		ingestForever(t, dir)
		return
	}
	dir := t.TempDir()
	var said bytes.Buffer
	for round := range 15 {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), killedEnv+"="+dir)
		cmd.Stdout = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+37*round) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
	h := openHost(t, dir, ipfstest.NewMemory())
	committed := 0
	for _, line := range bytes.Split(said.Bytes(), []byte("\n")) {
		var n int64
		if _, err := fmt.Sscanf(string(line), "committed %d.", &n); err != nil {
			continue
		}
		committed++
		data := killedBlob(n)
		if got, err := read(t.Context(), h, digest.FromBytes(data), 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Errorf("blob %d was committed: %d bytes, %v", n, len(got), err)
		}
	}
	if committed == 0 {
		t.Fatal("nothing was ever committed: the test tells nothing")
	}
	t.Logf("%d commits survived", committed)
	// The pin of what a crash came between goes soon.
	all := listed(t, h)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		pins, err := h.Objects.Pins(t.Context(), "")
		if err == nil && len(pins) == len(all) {
			break
		}
		if err != nil || time.Since(began) > time.Minute {
			t.Fatalf("%d blobs, %d pins, %v", len(all), len(pins), err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "content", "blobs", "*", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("records in the making are left: %v, %v", left, err)
	}
}

func killedBlob(n int64) []byte { return objectstest.Random(n, int(1+n*37_813%900_000)) }

// ingestForever ingests until the process is killed, and says what was committed.
func ingestForever(t *testing.T, dir string) {
	h := openHost(t, dir, ipfstest.NewMemory())
	for n := int64(0); ; n++ {
		data := killedBlob(n)
		d := digest.FromBytes(data)
		w, err := h.Writer(t.Context(), ctd.WithRef(fmt.Sprint("ref-", n)), ctd.WithDescriptor(ocispec.Descriptor{Digest: d, Size: int64(len(data))}))
		if errdefs.IsAlreadyExists(err) {
			continue
		}
		if err == nil {
			err = ctd.Copy(t.Context(), w, bytes.NewReader(data), int64(len(data)), d) // from where it was
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("committed %d.\n", n)
	}
}
