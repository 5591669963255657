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
