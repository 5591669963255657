//go:build linux

package unpack_test

import (
	"context"
	"os"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/unpack"
)

// adopter takes one directory, and notes what it is asked for.
type adopter struct {
	takes string
	asked []string
}

func (a *adopter) Adopt(_ context.Context, dir string, _ ocispec.Descriptor) (bool, error) {
	a.asked = append(a.asked, dir)
	return dir == a.takes, nil
}

// TestAdopter leaves a layer to the snapshotter whose directory it is for, and unpacks it
// elsewhere; one with a kept diffID it unpacks everywhere.
func TestAdopter(t *testing.T) {
	l := newLab(t)
	lower, upper, other, plain := l.folder("lower"), l.folder("upper"), l.folder("other"), l.folder("plain")
	a := &adopter{takes: upper}
	var err error
	l.Differ, err = unpack.New(unpack.Config{Node: l.node, Content: l.store, Adopter: a})
	l.must(err)
	tarball := layertest.Tar(t, text("a", "a"))
	desc := l.convert(tarball)
	if got := l.apply(desc, l.overlay(upper, lower)); got.Digest != desc.Digest {
		t.Errorf("applied %s, want %s", got.Digest, desc.Digest)
	}
	l.apply(desc, l.overlay(other, lower))
	l.apply(desc, bind(plain))
	if want := []string{upper, other, plain}; !slices.Equal(a.asked, want) {
		t.Errorf("asked for %q, want %q", a.asked, want)
	}
	for dir, want := range map[string]int{upper: 0, other: 1, plain: 1} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("%s has %v, %v; want %d names", dir, entries, err, want)
		}
	}
	desc.Annotations = map[string]string{mediatype.AnnotationKeep: "true"}
	kept := l.folder("kept")
	a.takes = kept
	l.apply(desc, bind(kept))
	if entries, err := os.ReadDir(kept); err != nil || len(entries) != 1 || len(a.asked) != 3 {
		t.Errorf("with a kept diffID: %v, %v, asked for %q", entries, err, a.asked)
	}
}
