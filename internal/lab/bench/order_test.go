package bench

import "testing"

// TestOrder finds that in a whole design each system is equally often at every place, and
// right after every other.
func TestOrder(t *testing.T) {
	for n := range 8 {
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		places, after := map[[2]int]int{}, map[[2]int]int{}
		for round := range 2 * n {
			ordered := order(all, round)
			if len(ordered) != n {
				t.Fatalf("%d systems: %v in round %d", n, ordered, round)
			}
			for i, s := range ordered {
				places[[2]int{s, i}]++
				if i > 0 {
					after[[2]int{ordered[i-1], s}]++
				}
			}
			if round == n-1 {
				for _, s := range all {
					if got := places[[2]int{s, 0}]; got != 1 {
						t.Errorf("%d systems: %d was first %d times in %d rounds", n, s, got, n)
					}
				}
			}
		}
		for a := range all {
			for b := range all {
				if got := places[[2]int{a, b}]; got != 2 {
					t.Errorf("%d systems: %d was at place %d %d times in %d rounds", n, a, b, got, 2*n)
				}
				if got := after[[2]int{a, b}]; a != b && got != 2 {
					t.Errorf("%d systems: %d came right after %d %d times in %d rounds", n, b, a, got, 2*n)
				}
			}
		}
	}
}
