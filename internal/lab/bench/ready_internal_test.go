package bench

import (
	"errors"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

func TestRoom(t *testing.T) {
	if err := room("memory", 4e9, 4e9); err != nil {
		t.Error(err)
	}
	err := room("memory", 3.5e9, 16e9)
	if err == nil || !strings.Contains(err.Error(), "memory: 3.50 GB are free, and this run needs 16 GB") {
		t.Errorf("got %v", err)
	}
}

// Without a lab no system has failed: all end, and nothing is reported missing.
func TestNoLabIsNoFailure(t *testing.T) {
	r := &Run{Systems: system.All(), bench: &bench{Options: Options{Log: t.Output()}}, out: &result.Report{Base: "overlayfs"}, dead: map[string]bool{}}
	noLab := errors.Join(errLab, errors.New("why"))
	calls := 0
	err := r.Each(t.Context(), func(system.System) error { calls++; return noLab })
	if !errors.Is(err, errLab) || calls != 1 || len(r.out.Missing) != 0 {
		t.Errorf("%d calls, %v, missing %v", calls, err, r.out.Missing)
	}
}

// What is not here is named: it would take part if it were.
func TestAbsent(t *testing.T) {
	none := func(string) (string, error) { return "", errors.New("not here") }
	v, err := versions(t.Context(), none)
	if err != nil || v["unpigz"] != absent || v["go"] == "" {
		t.Errorf("%v, %v", v, err)
	}
}
