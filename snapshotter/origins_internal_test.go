//go:build linux

package snapshotter

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
)

// TestSourcesOf reads where a manifest was pulled from.
func TestSourcesOf(t *testing.T) {
	got := sourcesOf(content.Info{Labels: map[string]string{
		"containerd.io/distribution.source.registry.example.com": "team/app,copies/app",
		"containerd.io/distribution.source.127.0.0.1:5000":       "app",
		"containerd.io/distribution.source.":                     "nowhere",
		"containerd.io/gc.ref.content.l.0":                       "sha256:1",
	}})
	want := []string{"127.0.0.1:5000/app", "registry.example.com/team/app", "registry.example.com/copies/app"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestWithPort has labels that leave out the port of the registry that an image was pulled from, and references that are made up.
func TestWithPort(t *testing.T) {
	for _, c := range []struct {
		ref        string
		list, want []string
	}{
		{"registry.example.com:5000/team/app:1", []string{"registry.example.com/team/app", "other.example.com/app"},
			[]string{"registry.example.com:5000/team/app", "other.example.com/app"}},
		{"registry.example.com/app@sha256:1", []string{"a/b", "registry.example.com/app"}, []string{"registry.example.com/app", "a/b"}},
		{"[::1]:5000/app:1", []string{"::1/app"}, []string{"[::1]:5000/app"}},
		{"10.0.0.1:5000/app:1", []string{"10.0.0.1/copy"}, []string{"10.0.0.1/copy"}},
		{"", []string{"10.0.0.1/app"}, []string{"10.0.0.1/app"}},
		{"nothing", []string{"10.0.0.1/app"}, []string{"10.0.0.1/app"}},
		{"127.0.0.1:8080/app:1", []string{"registry.example.com/app"}, []string{"registry.example.com/app"}},
	} {
		if got := withPort(pulledFrom(c.ref), c.list); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.ref, got, c.want)
		}
	}
}
