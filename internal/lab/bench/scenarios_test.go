package bench_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// name is what may stand in --only and in the name of a file.
var name = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// TestScenarios finds what else would show in the middle of a run.
func TestScenarios(t *testing.T) {
	names := map[string]bool{}
	for _, s := range bench.Scenarios() {
		if !name.MatchString(s.Name) || names[s.Name] {
			t.Errorf("scenario %q: the name is taken, or no file can have it", s.Name)
		}
		names[s.Name] = true
		if s.Title == "" || s.About == "" || s.Measure == nil || len(s.Cases) == 0 {
			t.Errorf("%s: Title, About, Measure or Cases are missing", s.Name)
		}
		for _, n := range s.Systems {
			if _, err := system.Named(n); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		}
		if s.Base == "" && len(s.Systems) == 0 {
			t.Errorf("%s: ratios are to nothing", s.Name)
		}
		base := s.Base
		if base == "" && len(s.Systems) > 0 {
			base = s.Systems[0]
		}
		for _, n := range s.Quick {
			if !slices.Contains(s.Systems, n) {
				t.Errorf("%s: %s is in a quick run and not in a whole one", s.Name, n)
			}
		}
		if len(s.Quick) > 0 && slices.Contains(s.Systems, base) && !slices.Contains(s.Quick, base) {
			t.Errorf("%s: a quick run has no %s, which ratios are to", s.Name, base)
		}
		for _, p := range s.Planned {
			if p.Reason == "" || slices.Contains(s.Systems, p.System) {
				t.Errorf("%s: planned: %+v: no reason, or it is measured", s.Name, p)
			}
		}
		checkCases(t, s)
	}
}

func checkCases(t *testing.T, s bench.Scenario) {
	t.Helper()
	names := map[string]bool{}
	for _, c := range s.Cases {
		if !name.MatchString(c.Name) || names[c.Name] {
			t.Errorf("%s: case %q: the name is taken, or no folder can have it", s.Name, c.Name)
		}
		names[c.Name] = true
		if c.Rounds < 1 || c.Quick < 0 {
			t.Errorf("%s/%s: %d rounds, and %d in a quick run", s.Name, c.Name, c.Rounds, c.Quick)
		}
		if c.QuickLink != (bench.Link{}) && !slices.Contains(c.Links, c.QuickLink) {
			t.Errorf("%s/%s: a quick run has a link that a whole one has not", s.Name, c.Name)
		}
		for _, image := range []string{c.Image, c.Before} {
			if image == "" {
				continue // the scenario needs none, or says which
			}
			if err := images.Check(image); err != nil {
				t.Errorf("%s/%s: %v", s.Name, c.Name, err)
			}
		}
		for _, n := range c.Only {
			if !slices.Contains(s.Systems, n) {
				t.Errorf("%s/%s: %s takes no part in the scenario", s.Name, c.Name, n)
			}
		}
	}
}

// TestSystems finds that systems are told apart.
func TestSystems(t *testing.T) {
	names := map[string]bool{}
	for _, s := range system.All() {
		if !name.MatchString(s.Name()) || names[s.Name()] || s.About() == "" {
			t.Errorf("system %q: the name is taken or cannot stand in results, or it says nothing of itself", s.Name())
		}
		names[s.Name()] = true
	}
	if _, err := system.Named("none"); err == nil {
		t.Error("no error for a system that is not there")
	}
}
