package objects

import (
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// pile is something that can be done without.
type pile struct{ bytes atomic.Int64 }

func (p *pile) Bytes() int64 { return p.bytes.Load() }

func (p *pile) Drop(bytes int64) int64 {
	freed := min(bytes, p.bytes.Load())
	p.bytes.Add(-freed)
	return freed
}

// openBeside opens a store beside so many spare bytes.
func openBeside(t *testing.T, bytes int64) (*Store, *pile) {
	t.Helper()
	spare := &pile{}
	spare.bytes.Store(bytes)
	s, err := openBoot(t.TempDir(), Options{Spare: spare}, "boot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, spare
}

// TestSpareGoesFirst lets a store exceed its limit by what is spare, and then by more.
func TestSpareGoesFirst(t *testing.T) {
	const size = 100_000
	s, spare := openBeside(t, onDisk(size))
	old := aged(t, s, 1, size, 2)
	aged(t, s, 2, size, 1)
	limited(s, 3*onDisk(size)-1, nil)
	if space := s.Space(); space.Used != 3*onDisk(size) || space.Spare != onDisk(size) {
		t.Errorf("Space() = %+v", space)
	}
	s.evictDown()
	if space := s.Space(); !s.HasFile(old) || space.EvictedObjects != 0 || space.Used > space.Limit-space.Limit/evictShare {
		t.Errorf("Space() = %+v, and the oldest file is there: %v", space, s.HasFile(old))
	}
	spare.bytes.Store(10)
	s.room.limit.Store(2*onDisk(size) - 1)
	s.evictDown()
	if space := s.Space(); s.HasFile(old) || space.Spare != 0 || space.Used != onDisk(size) {
		t.Errorf("Space() = %+v, and the oldest file is there: %v", space, s.HasFile(old))
	}
}

// TestObjectsWithinTheLimitStay when what is spare is all that exceeds it, and less than is freed
// at a time.
func TestObjectsWithinTheLimitStay(t *testing.T) {
	const size = 100_000
	s, spare := openBeside(t, 10)
	old := aged(t, s, 1, size, 2)
	aged(t, s, 2, size, 1)
	limited(s, 2*onDisk(size), nil)
	s.evictDown()
	if space := s.Space(); !s.HasFile(old) || space.EvictedObjects != 0 || spare.Bytes() != 0 {
		t.Errorf("Space() = %+v, and the oldest file is there: %v", space, s.HasFile(old))
	}
}

// TestObjectBytes counts no spare ones, and says so when nothing is counted yet.
func TestObjectBytes(t *testing.T) {
	const size = 100_000
	s, _ := openBeside(t, 1000)
	aged(t, s, 1, size, 1)
	if bytes, known := s.ObjectBytes(); bytes != onDisk(size) || !known {
		t.Errorf("%d bytes, known: %v", bytes, known)
	}
	if _, known := (&Store{counted: make(chan struct{})}).ObjectBytes(); known {
		t.Error("a store that has counted nothing knows how much it has")
	}
}

// TestSpareGoesWhenTheDiskIsFull, in a store without a limit, too.
func TestSpareGoesWhenTheDiskIsFull(t *testing.T) {
	s, spare := openBeside(t, 1000)
	tries := 0
	full := func() error {
		if tries++; spare.Bytes() == 1000 {
			return unix.ENOSPC
		}
		return nil
	}
	if err := s.withRoom(full); err != nil || tries != 2 {
		t.Errorf("after %d tries: %v", tries, err)
	}
	spare.bytes.Store(0)
	if err := s.withRoom(func() error { return unix.ENOSPC }); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("with nothing to spare: %v", err)
	}
}
