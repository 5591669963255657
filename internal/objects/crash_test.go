package objects

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
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

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// crashDir names the store in which this test binary, started again, works until it
// is killed.
const crashDir = "IPCS_TEST_CRASH_DIR"

const (
	kills = 200
	// crashLimit is small, so that something is evicted all the time.
	crashLimit = 12 << 20
	// crashPins is how many of its last pins the child keeps.
	crashPins = 4
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, work(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// step is one thing that the child does. What it stores follows from the number, so that the
// parent knows it too.
type step struct {
	file   ipfs.File
	leaves []ipfs.Block
	nodes  []ipfs.Block
	pin    ipfs.Pin
}

func makeStep(t testing.TB, n int64) step {
	size := []int{300, 70_000, ipfs.LeafSize + 1, 2*ipfs.LeafSize + 100}[n%4]
	// Every file differs, some leaves are the same: a page that is repeated is quickly made.
	page := binary.LittleEndian.AppendUint64(make([]byte, 0, 4096), uint64(n))
	data := bytes.Repeat(page[:4096], size/4096+1)[:size]
	if n%8 == 3 {
		clear(data[ipfs.LeafSize : 2*ipfs.LeafSize])
	}
	var s step
	s.file, s.leaves = objectstest.NewFile(t, data)
	if s.file.Leaves != "" {
		_, err := ipfs.BuildFile(s.file.Size, s.file.Leaves, func(b ipfs.Block) error {
			s.nodes = append(s.nodes, b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.pin = ipfs.Pin{Root: s.file.Cid, Name: strconv.FormatInt(n, 10)}
	return s
}

// publish stores leaf by leaf, as a converter does, and pins.
func (st step) publish(ctx context.Context, s *Store) error {
	if err := errors.Join(s.Put(ctx, st.leaves...), s.Put(ctx, st.nodes...)); err != nil {
		return err
	}
	return s.Pin(ctx, st.pin)
}

// fetch stores the file, as a consumer does.
func (st step) fetch(s *Store) error {
	p, err := s.Create(st.file)
	if err != nil {
		return err
	}
	for i, b := range st.leaves {
		if err := p.WriteLeaf(i, b); err != nil {
			return err
		}
	}
	return p.Commit()
}

// do does step n, and says so: "pinned N" once that is acknowledged, "unpinning N" before it
// is begun.
func (st step) do(ctx context.Context, s *Store, n int64, pinned *[]step) error {
	switch n % 5 {
	case 0, 1: // some files come both ways
		if n%2 == 0 {
			if err := st.fetch(s); err != nil {
				return err
			}
		}
		if err := st.publish(ctx, s); err != nil {
			return err
		}
		fmt.Println("pinned", n)
		*pinned = append(*pinned, st)
	case 2:
		if err := errors.Join(st.fetch(s), s.Sync(ctx)); err != nil {
			return err
		}
	default:
		if err := st.fetch(s); err != nil {
			return err
		}
		if n%3 == 0 { // as if it were damaged
			path := s.objectPath(st.file.Cid)
			if info, err := os.Lstat(path); err == nil { // not evicted by now
				s.removeDamaged(path, st.file, info, ipfs.ErrHash)
			}
		}
	}
	if len(*pinned) <= crashPins {
		return nil
	}
	fmt.Println("unpinning", (*pinned)[0].pin.Name)
	err := s.Unpin(ctx, (*pinned)[0].pin)
	*pinned = (*pinned)[1:]
	return err
}

// work does steps, from two goroutines, until it is killed.
func work(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	first, err := strconv.ParseInt(os.Getenv(crashDir+"_FIRST"), 10, 64)
	if err != nil {
		return err
	}
	s.Limit(crashLimit, nil)
	fmt.Println("open")
	t := &testing.B{} // makes the data; its failures end the goroutine, and so show
	failed := make(chan error)
	for w := range int64(2) {
		go func() {
			var pinned []step
			for n := first + w; ; n += 2 {
				if err := makeStep(t, n).do(context.Background(), s, n, &pinned); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// TestKill kills a process that stores, pins, unpins, evicts and syncs, again and again at
// random points. Each time nothing that was acknowledged is lost, and no partial file or
// reference is left; now and then everything is hashed.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	rnd := rand.New(rand.NewSource(1))
	acked := make(map[int64]bool)
	next, evicted := int64(0), 0
	for i := range kills {
		for _, line := range killed(t, dir, next, rnd) {
			what, number, _ := strings.Cut(line, " ")
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				t.Fatalf("child says %q", line)
			}
			if acked[n] = what == "pinned"; !acked[n] {
				delete(acked, n)
			}
			next = max(next, n+1)
		}
		next += 20 // the steps that were under way are not repeated
		s := openAt(t, dir, bootID(t))
		if left, err := os.ReadDir(filepath.Join(dir, partialName)); err != nil || len(left) != 0 {
			t.Fatalf("partial holds %v, %v", left, err)
		}
		if found, err := s.dangling(); err != nil || len(found) != 0 {
			t.Fatalf("%d references lead nowhere, %v", len(found), err)
		}
		checkAcked(t, s, acked)
		unpinOthers(t, s, acked)
		if i%20 == 19 {
			wantWhole(t, s)
			evicted += evictable(t, s)
			wantWhole(t, s)
			checkAcked(t, s, acked)
		}
		leave(t, s)
	}
	t.Logf("%d kills, %d steps, %d pins left; the parent has evicted %d objects", kills, next, len(acked), evicted)
	if evicted == 0 || len(acked) == 0 {
		t.Error("this tests nothing")
	}
}

// evictable evicts all that is not pinned.
func evictable(t *testing.T, s *Store) int {
	t.Helper()
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	limited(s, 1, nil)
	if _, err := s.evict(1 << 40); err != nil {
		t.Fatal(err)
	}
	return int(s.Space().EvictedObjects)
}

// unpinOthers removes pins that were not acknowledged, which may be there, and all but some
// of those that were: their children, who forget them, are gone.
func unpinOthers(t *testing.T, s *Store, acked map[int64]bool) {
	t.Helper()
	pins, err := s.Pins(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, p := range pins {
		n, err := strconv.ParseInt(p.Name, 10, 64)
		if err == nil && acked[n] && kept < crashPins {
			kept++
			continue
		}
		delete(acked, n)
		if err := s.Unpin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

func bootID(t *testing.T) string {
	t.Helper()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return string(id)
}

// killed runs the child, kills it a random while after it has opened the store, or sometimes
// after it was started, and returns what it has said besides.
func killed(t *testing.T, dir string, first int64, rnd *rand.Rand) []string {
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
	said := bufio.NewReader(out)
	if rnd.Intn(8) > 0 {
		if line, err := said.ReadString('\n'); line != "open\n" {
			t.Fatalf("child says %q, %v", line, err)
		}
	}
	kill := time.AfterFunc(time.Duration(rnd.Intn(30_000))*time.Microsecond, func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	defer kill.Stop()
	rest, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("child ended by itself: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(rest)) {
		if line, whole := strings.CutSuffix(line, "\n"); whole && line != "open" {
			lines = append(lines, line)
		}
	}
	return lines
}

// checkAcked finds the pins, and all that they need.
func checkAcked(t *testing.T, s *Store, acked map[int64]bool) {
	t.Helper()
	pins, err := s.Pins(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, p := range pins {
		have[p.Name] = true
	}
	for n := range acked {
		st := makeStep(t, n)
		if !have[st.pin.Name] {
			t.Fatalf("pin %d was acknowledged and is not there", n)
		}
		for _, b := range append(st.leaves, st.nodes...) {
			if data, err := s.Get(t.Context(), b.Cid); err != nil || !bytes.Equal(data, b.Data) {
				t.Fatalf("block of step %d: %v", n, err)
			}
		}
	}
}
