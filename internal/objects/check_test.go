package objects

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// flip changes one bit of an object.
func flip(t *testing.T, s *Store, object cid.Cid, off int64) {
	t.Helper()
	path := s.objectPath(object)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[off] ^= 4
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600), os.Chmod(path, 0o444)); err != nil {
		t.Fatal(err)
	}
}

// damaged makes a store with everything that can be wrong, and returns what is right in it.
func damaged(t *testing.T, s *Store) (right []ipfs.Block) {
	t.Helper()
	flipped, leaves := objectstest.NewFile(t, objectstest.Random(1, 3*ipfs.LeafSize))
	commit(t, s, flipped, leaves)
	flip(t, s, flipped.Cid, ipfs.LeafSize+5)
	right = append(right, leaves[0], leaves[2])

	cut, cutLeaves := objectstest.NewFile(t, objectstest.Random(2, 1000))
	commit(t, s, cut, cutLeaves)
	long, longLeaves := objectstest.NewFile(t, objectstest.Random(3, 1000))
	commit(t, s, long, longLeaves)
	huge, hugeLeaves := objectstest.NewFile(t, objectstest.Random(4, 1000))
	commit(t, s, huge, hugeLeaves)
	misplaced, misplacedLeaves := objectstest.NewFile(t, objectstest.Random(5, 1000))
	commit(t, s, misplaced, misplacedLeaves)
	whole, wholeLeaves := objectstest.NewFile(t, objectstest.Random(6, ipfs.LeafSize+1))
	commit(t, s, whole, wholeLeaves)
	right = append(right, wholeLeaves...)
	stray := filepath.Join(filepath.Dir(s.objectPath(cut.Cid)), "stray")
	err := errors.Join(
		os.Truncate(s.objectPath(cut.Cid), 999),
		os.Truncate(s.objectPath(long.Cid), 1001),
		os.Truncate(s.objectPath(huge.Cid), ipfs.MaxBlock+1),
		os.Rename(s.objectPath(misplaced.Cid), filepath.Join(filepath.Dir(s.objectPath(cut.Cid)), misplaced.Cid.String())),
		os.WriteFile(stray, []byte("stray"), 0o600),
		os.WriteFile(filepath.Join(s.dir, partialName, "left"), []byte("left"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}

	n := node(t, wholeLeaves[0].Cid)
	digest, _ := digestOf(n.Cid)
	absent, _ := objectstest.NewFile(t, objectstest.Random(7, ipfs.LeafSize+1))
	leafDigest, _ := digestOf(wholeLeaves[0].Cid)
	unlisted, _ := digestOf(wholeLeaves[1].Cid)
	del := ref{object: whole.Cid, leaf: 1}.entry(unlisted)
	del.value = nil
	err = s.db.flush(entry{bucketBlocks, []byte(digest), []byte("something else")}, ref{object: absent.Cid}.entry(leafDigest), del)
	if err != nil {
		t.Fatal(err)
	}
	return right
}

func TestCheckFindsAndMends(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	right := damaged(t, s)
	before := s.Stats()
	dry, err := s.Check(t.Context(), CheckOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(dry.Damaged) != 7 || dry.Dangling != 1 || dry.Unlisted != 1 || dry.Leftovers != 1 || len(dry.Lost) != 0 || dry.Mended() {
		t.Fatalf("a dry run finds %+v", dry)
	}
	if s.Stats() != before {
		t.Errorf("a dry run has removed something: %+v", s.Stats())
	}
	var last CheckProgress
	got, err := s.Check(t.Context(), CheckOptions{Progress: func(p CheckProgress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	// References into the object that was removed lead nowhere as well.
	if len(got.Damaged) != 7 || got.Dangling != 4 || got.Unlisted != 1 || got.Leftovers != 1 || !got.Wrong() || !got.Mended() {
		t.Fatalf("Check finds %+v", got)
	}
	if last.Objects != got.Objects || last.Bytes != got.Bytes || last.TotalObjects != before.Objects {
		t.Errorf("progress ends with %+v, the report has %+v", last, got)
	}
	if again, err := s.Check(t.Context(), CheckOptions{}); err != nil || again.Wrong() {
		t.Errorf("after it was mended: %+v, %v", again, err)
	}
	for _, b := range right {
		if data, err := s.Get(t.Context(), b.Cid); err != nil || !bytes.Equal(data, b.Data) {
			t.Errorf("block %s: %v", b.Cid, err)
		}
	}
	var objects int64
	err = s.walk(time.Time{}, func(string, os.FileInfo) error {
		objects++
		return nil
	})
	if got := s.Stats(); err != nil || got.Objects != objects {
		t.Errorf("Stats() = %+v, there are %d objects, %v", got, objects, err)
	}
}

// TestCheckTellsWhatPinsHaveLost names the pins, and only those, that are not whole.
func TestCheckTellsWhatPinsHaveLost(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	good, bad := block(t, 1), block(t, 2)
	empty, err := ipfs.NewBlock(cid.Raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, torn, half := node(t, good.Cid, empty.Cid), node(t, good.Cid, bad.Cid), node(t, good.Cid, node(t, bad.Cid).Cid)
	if err := s.Put(t.Context(), good, bad, whole, torn, half); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]ipfs.Block{"whole": whole, "torn": torn, "half": half} {
		if err := s.Pin(t.Context(), ipfs.Pin{Root: root.Cid, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	flip(t, s, bad.Cid, 1)
	for _, dry := range []bool{true, false, false} { // lost is lost, also when it was removed
		r, err := s.Check(t.Context(), CheckOptions{DryRun: dry})
		if err != nil || r.Mended() || len(r.Lost) != 2 {
			t.Fatalf("dry %v: %+v, %v", dry, r, err)
		}
		slices.SortFunc(r.Lost, func(a, b Loss) int { return strings.Compare(a.Pin, b.Pin) })
		for i, want := range []Loss{
			{half.Cid.String(), "half", 1, []string{node(t, bad.Cid).Cid.String()}},
			{torn.Cid.String(), "torn", 1, []string{bad.Cid.String()}},
		} {
			if got := r.Lost[i]; got.Root != want.Root || got.Pin != want.Pin || got.Blocks != 1 || !slices.Equal(got.Missing, want.Missing) {
				t.Errorf("lost %+v, want %+v", got, want)
			}
		}
	}
}

func TestCheckEnds(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, 1000))
	commit(t, s, f, leaves)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Check(ctx, CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Check with a cancelled context: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context(), CheckOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Check of a closed store: %v", err)
	}
}
