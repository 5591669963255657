package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// smallHeap is what the program may take before it collects garbage more often than
	// Go does by itself, which is when what it holds has doubled.
	smallHeap = 192 << 20
	// spareHeap is room for garbage, besides an eighth of what is held. What a layer of a
	// million files takes has no pointers, and a collection takes milliseconds.
	spareHeap = 16 << 20
)

// limitMemory keeps the garbage of large layers small, unless the user has limited memory
// otherwise. A fixed limit below what is held would collect without end: this one follows.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		follow(0)
	}
}

// follow sets the limit, and again after every collection. limit is the one that is set.
func follow(limit int64) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if next := memoryLimit(live[0].Value.Uint64()); next != limit {
		limit = next
		debug.SetMemoryLimit(limit)
	}
	type collected struct{ _ *int }
	runtime.SetFinalizer(&collected{}, func(*collected) { follow(limit) })
}

// memoryLimit is the limit when so many bytes are held, in steps of a MiB: setting one
// stops the program for a moment.
func memoryLimit(live uint64) int64 {
	const step = 1 << 20
	return max(smallHeap, int64(live+live/8+spareHeap)/step*step)
}
