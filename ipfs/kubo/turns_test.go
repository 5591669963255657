package kubo

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

// TestTurns finds that what nobody waits for leaves half of the turns to what somebody does.
func TestTurns(t *testing.T) {
	turns := newTurns(4)
	spare := ipfs.WithRank(t.Context(), ipfs.Spare)
	take := func(ctx context.Context) (func(), bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		done, err := turns.take(ctx)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		return done, err == nil
	}
	var ends []func()
	for i, want := range []bool{true, true, false} {
		done, ok := take(spare)
		if ok != want {
			t.Fatalf("spare request %d: %v", i, ok)
		}
		if ok {
			ends = append(ends, done)
		}
	}
	for i, want := range []bool{true, true, false} {
		done, ok := take(t.Context())
		if ok != want {
			t.Fatalf("urgent request %d: %v", i, ok)
		}
		if ok {
			ends = append(ends, done)
		}
	}
	for _, end := range ends {
		end()
	}
	for i := range 4 {
		if _, ok := take(t.Context()); !ok {
			t.Fatalf("request %d after all have ended", i)
		}
	}
}
