package fetch

import (
	"testing"
	"time"
)

// TestDistance: a source is far away when nearly all small reads take long.
func TestDistance(t *testing.T) {
	var d distance
	steps := []struct {
		wait  time.Duration
		times int
		far   bool
	}{
		{time.Millisecond, 20, false}, {time.Second, 5, false}, {farAway, 1, true}, {0, 2, true}, {0, 1, false}, {farAway, 8, true},
	}
	for i, step := range steps {
		for range step.times {
			d.add(step.wait)
		}
		if d.far() != step.far {
			t.Errorf("after step %d: far is %v", i, d.far())
		}
	}
}
