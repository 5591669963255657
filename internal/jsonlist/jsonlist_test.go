package jsonlist_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/jsonlist"
)

func TestDecode(t *testing.T) {
	for text, want := range map[string]struct {
		list []int
		err  error
	}{
		"":          {},
		"null":      {},
		"[]":        {},
		"[1,2,3]":   {list: []int{1, 2, 3}},
		"[1,2,3,4]": {err: jsonlist.ErrTooMany},
		`[1,"a"]`:   {err: jsonlist.ErrSyntax},
		`{"a":1}`:   {err: jsonlist.ErrSyntax},
		"1":         {err: jsonlist.ErrSyntax},
		"[1,2":      {err: jsonlist.ErrSyntax},
		"[1,,2]":    {err: jsonlist.ErrSyntax},
	} {
		got, err := jsonlist.Decode[int]([]byte(text), 3)
		if !slices.Equal(got, want.list) || !errors.Is(err, want.err) {
			t.Errorf("%q is %v, %v; want %v, %v", text, got, err, want.list, want.err)
		}
	}
}

// TestCounted gives a list that would take 200 MB.
func TestCounted(t *testing.T) {
	text := []byte("[" + strings.Repeat("{},", 1<<20) + "{}]")
	allocated := testing.AllocsPerRun(1, func() {
		if _, err := jsonlist.Decode[struct{ _ [200]byte }](text, 10); !errors.Is(err, jsonlist.ErrTooMany) {
			t.Error(err)
		}
	})
	if allocated > 100 {
		t.Errorf("%v allocations for 10 elements", allocated)
	}
}
