package bench

// order returns the order in which all are measured in a round: a Williams design, which
// is a Latin square (in as many rounds as there are systems each is first once, second
// once, and so on) in which what goes before each changes from round to round, as one may
// leave something behind for the next. With an even number each is measured right after
// each other one equally often in as many rounds; with an odd one that takes twice as
// many, every second of which is mirrored.
func order[T any](all []T, round int) []T {
	n := len(all)
	mirrored := n%2 == 1 && round%2 == 1
	ordered := make([]T, n)
	for i := range ordered { // 0, 1, n-1, 2, n-2, and so on, from the round's first
		step := (i + 1) / 2
		if (i%2 == 0) != mirrored {
			step = n - step
		}
		ordered[i] = all[(round+step)%n]
	}
	return ordered
}
