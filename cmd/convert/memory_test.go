package main

import (
	"runtime/debug"
	"testing"
)

// TestMemoryLimit wants garbage to be bounded, and a limit that is never below what is held.
func TestMemoryLimit(t *testing.T) {
	for live := uint64(0); live < 4<<30; live += 7 << 20 {
		limit := memoryLimit(live)
		if limit < int64(live)+spareHeap/2 {
			t.Fatalf("%d bytes held: limit %d", live, limit)
		}
		if limit > smallHeap && limit > int64(live)*5/4+spareHeap {
			t.Fatalf("%d bytes held: limit %d", live, limit)
		}
	}
}

// TestLimitFollows holds more than the limit that a small program starts with.
func TestLimitFollows(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	limitMemory()
	if now := debug.SetMemoryLimit(-1); now != smallHeap {
		t.Fatalf("limit %d at the start", now)
	}
	held := make([]byte, 2*smallHeap)
	for now := int64(smallHeap); now < 2*smallHeap; now = debug.SetMemoryLimit(-1) {
		held[len(held)/2]++
		debug.FreeOSMemory() // collects; the finalizer comes after it
	}
}
