package memory

import (
	"runtime/debug"
	"testing"
)

const small = 64 << 20

// TestLimit wants garbage to be bounded, and a limit that is never below what is held.
func TestLimit(t *testing.T) {
	for live := uint64(0); live < 4<<30; live += 7 << 20 {
		limit := limitFor(small, live)
		if limit < int64(live)+spare/2 {
			t.Fatalf("%d bytes held: limit %d", live, limit)
		}
		if limit > small && limit > int64(live)*5/4+spare {
			t.Fatalf("%d bytes held: limit %d", live, limit)
		}
	}
}

// TestFollow holds more than the limit that a small program starts with.
func TestFollow(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	Follow(small)
	if now := debug.SetMemoryLimit(-1); now != small {
		t.Fatalf("limit %d at the start", now)
	}
	held := make([]byte, 2*small)
	for now := int64(small); now < 2*small; now = debug.SetMemoryLimit(-1) {
		held[len(held)/2]++
		Release() // collects; the finalizer comes after it
	}
}
