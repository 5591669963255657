// Package memory bounds the garbage of a program that holds much.
//
// Go collects garbage when what a program holds has doubled. Follow sets a limit instead that
// follows what is held: an eighth of it, and some, may be garbage. What is held here for a
// million files has no pointers, so that a collection takes milliseconds. A fixed limit below
// what is held would collect without end.
//
// Concurrency: the limit is the process's. It is set again in the runtime's own goroutine of
// finalizers after each collection, for as long as the process lives.
package memory

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// spare is room for garbage, besides an eighth of what is held.
const spare = 16 << 20

// Follow keeps garbage small once the program takes more than small bytes, unless the user
// has limited memory otherwise. Up to that, Go collects as it does by itself.
func Follow(small int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		follow(small, 0)
	}
}

// follow sets the limit, and again after every collection. limit is the one that is set.
func follow(small, limit int64) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if next := limitFor(small, live[0].Value.Uint64()); next != limit {
		limit = next
		debug.SetMemoryLimit(limit)
	}
	type collected struct{ _ *int }
	runtime.SetFinalizer(&collected{}, func(*collected) { follow(small, limit) })
}

// limitFor is the limit when so many bytes are held, in steps of a MiB: setting one stops the
// program for a moment.
func limitFor(small int64, live uint64) int64 {
	const step = 1 << 20
	return max(small, int64(live+live/8+spare)/step*step)
}

// Release gives back to the system what is not held, after work that took much. It collects
// first, which the caller waits for.
func Release() { debug.FreeOSMemory() }
