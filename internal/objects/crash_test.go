package objects

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// crashDir names the store in which this test binary, started again, works until it
// is killed.
const crashDir = "IPCS_TEST_CRASH_DIR"

const kills = 40

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, work(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// step is one thing the child does, then says "done N" once it is acknowledged. What it
// stores follows from the number, so that the parent knows it too.
type step struct {
	file   ipfs.File
	leaves []ipfs.Block
	node   ipfs.Block
	pin    ipfs.Pin
}

func makeStep(t testing.TB, n int64) step {
	size := []int{300, 70_000, ipfs.LeafSize + 1, 2*ipfs.LeafSize + 100}[n%4]
	var s step
	s.file, s.leaves = objectstest.NewFile(t, objectstest.Random(n, size))
	node, err := ipfs.NewBlock(cid.DagProtobuf, fmt.Appendf(nil, "node %d", n))
	if err != nil {
		t.Fatal(err)
	}
	s.node = node
	s.pin = ipfs.Pin{Root: node.Cid, Name: strconv.FormatInt(n, 10)}
	return s
}

func (st step) do(ctx context.Context, s *Store, n int64) error {
	if n%3 == 0 { // as a publisher does: leaves first
		if err := s.Put(ctx, st.leaves...); err != nil {
			return err
		}
	}
	if err := s.Put(ctx, st.node); err != nil {
		return err
	}
	p, err := s.Create(st.file)
	if err != nil {
		return err
	}
	for i, b := range st.leaves {
		if err := p.WriteLeaf(i, b.Data); err != nil {
			return err
		}
	}
	if err := p.Commit(); err != nil {
		return err
	}
	return s.Pin(ctx, st.pin)
}

// work stores and pins, from two goroutines, until it is killed.
func work(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	first, err := strconv.ParseInt(os.Getenv(crashDir+"_FIRST"), 10, 64)
	if err != nil {
		return err
	}
	t := &testing.B{} // makes the data; its failures end the goroutine, and so show
	failed := make(chan error)
	for w := range int64(2) {
		go func() {
			for n := first + w; ; n += 2 {
				if err := makeStep(t, n).do(context.Background(), s, n); err != nil {
					failed <- err
				}
				fmt.Println("done", n)
			}
		}()
	}
	return <-failed
}

// TestKill kills a process that stores and pins, again and again at random points, and
// each time finds in the store what was acknowledged and nothing that is damaged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	rnd := rand.New(rand.NewSource(1))
	var all []int64
	next := int64(0)
	for range kills {
		acked := killed(t, dir, next, rnd)
		all = append(all, acked...)
		for _, n := range acked {
			next = max(next, n+1)
		}
		next += 4 // the steps that were under way are not repeated
		s := openAt(t, dir, bootID(t))
		if left, err := os.ReadDir(filepath.Join(dir, partialName)); err != nil || len(left) != 0 {
			t.Fatalf("partial holds %v, %v", left, err)
		}
		checkAcked(t, s, acked)
		leave(t, s)
	}
	s := openAt(t, dir, bootID(t))
	err := s.walk(time.Time{}, func(path string, _ os.FileInfo) error { return verifyObject(path) })
	if err != nil {
		t.Fatal(err)
	}
	checkAcked(t, s, all)
	t.Logf("%d kills, %d steps acknowledged", kills, len(all))
}

func bootID(t *testing.T) string {
	t.Helper()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return string(id)
}

// killed runs the child until it has acknowledged a few steps and a random while, and
// returns what it acknowledged.
func killed(t *testing.T, dir string, first int64, rnd *rand.Rand) []int64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, fmt.Sprintf("%s_FIRST=%d", crashDir, first))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Duration(rnd.Intn(100_000))*time.Microsecond, func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	defer kill.Stop()
	var acked []int64
	lines, err := io.ReadAll(bufio.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		var n int64
		if _, err := fmt.Sscanf(line, "done %d\n", &n); err == nil && strings.HasSuffix(line, "\n") {
			acked = append(acked, n)
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("child ended by itself: %v", err)
	}
	return acked
}

func checkAcked(t *testing.T, s *Store, acked []int64) {
	t.Helper()
	pins, err := s.Pins(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[ipfs.Pin]bool)
	for _, p := range pins {
		have[p] = true
	}
	for _, n := range acked {
		st := makeStep(t, n)
		if !have[st.pin] {
			t.Fatalf("pin %d was acknowledged and is not there", n)
		}
		for _, b := range append(st.leaves, st.node) {
			if data, err := s.Get(t.Context(), b.Cid); err != nil || !bytes.Equal(data, b.Data) {
				t.Fatalf("block of step %d: %v", n, err)
			}
		}
		if !s.HasFile(st.file) {
			t.Fatalf("file of step %d is not there", n)
		}
	}
}
