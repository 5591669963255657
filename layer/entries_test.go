package layer

import (
	"errors"
	"testing"
)

// TestCompareIndexes tells indexes apart that differ in nothing but where an entry stands, in
// each form that an index has.
func TestCompareIndexes(t *testing.T) {
	below := &Index{Entries: []Entry{root(), directory("a", 0), directory("b", 1)}}
	beside := &Index{Entries: []Entry{root(), directory("a", 0), directory("b", 0)}}
	for _, x := range []*Index{below, beside, fullIndex(t)} {
		b, err := EncodeIndex(x)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := newEncoded([]string{string(b)})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(compareIndexes(encoded, x), compareIndexes(x, encoded)); err != nil {
			t.Error(err)
		}
		for i := range x.Entries {
			if got, want := pathOf(encoded, i), x.Path(i); got != want {
				t.Errorf("path of entry %d: %q, want %q", i, got, want)
			}
		}
		if x == below {
			for name, err := range map[string]error{"decoded": compareIndexes(x, beside), "encoded": compareIndexes(encoded, beside)} {
				if !errors.Is(err, ErrViews) {
					t.Errorf("%s: %v, want %v", name, err, ErrViews)
				}
			}
		}
	}
}
