package origin

import (
	"fmt"
	"testing"
)

// TestTrust stops waiting for others that bring nothing, and waits for those that do.
func TestTrust(t *testing.T) {
	for _, tt := range []struct {
		wanted, came int
		waits        bool
	}{{1, 0, false}, {1, 1, true}, {10, 4, false}, {10, 5, true}, {2, 0, false}} {
		var of trust
		if !of.now() {
			t.Fatal("others are not waited for at first")
		}
		if of.note(tt.wanted, tt.came); of.now() != tt.waits {
			t.Errorf("after %d of %d, others are waited for: %v", tt.came, tt.wanted, of.now())
		}
	}
	var of trust
	for range 10 {
		of.note(1, 0)
	}
	if of.pause != lastAlone {
		t.Errorf("after ten times in vain, the pause is %v", of.pause)
	}
}

// TestOwns has each of many things be one node's, and about as many each node's.
func TestOwns(t *testing.T) {
	nodes := []string{"a", "b", "c", "d"}
	count := map[string]int{}
	for i := range 4000 {
		have := 0
		for j, n := range nodes {
			others := append(append([]string{}, nodes[:j]...), nodes[j+1:]...)
			if (owners{n, others}).own(fmt.Sprint("seed/", i)) {
				have++
				count[n]++
			}
		}
		if have != 1 {
			t.Fatalf("%d has %d owners", i, have)
		}
	}
	for n, k := range count {
		if k < 800 || k > 1200 {
			t.Errorf("%s has %d of 4000", n, k)
		}
	}
}
