//go:build linux

package snapshotter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/hinshun/ipcs/mediatype"
)

// FuzzRequest reads labels of any kind. What is accepted must hold together.
func FuzzRequest(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, key, root, target, diffID, parent, image string) {
		labels := map[string]string{mediatype.AnnotationRoot: root, snapshots.LabelSnapshotRef: target, mediatype.AnnotationImage: image}
		if diffID != "" {
			labels[snapshots.LabelSnapshotDiffID] = diffID
		}
		if parent != "" {
			labels[labelParentChain] = parent
		}
		r, err := parseRequest(key, labels)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Fatalf("error is not an invalid argument: %v", err)
			}
			return
		}
		if r == nil {
			if target != "" {
				t.Fatal("an extraction with a layer root is taken for an ordinary one")
			}
			return
		}
		c, err := mediatype.RootCid(r.digest)
		if err != nil || !c.Equals(r.root) {
			t.Fatalf("digest %s and root %s differ (%v)", r.digest, r.root, err)
		}
		var links []link
		if parent != "" {
			links = []link{{id: "1", name: "parent", chain: r.parentChain}}
		}
		if r.verify(links) == nil && diffID != "" && r.digest.String() != diffID {
			t.Fatalf("layer %s passes for diffID %s", r.digest, diffID)
		}
	})
}

// FuzzHostRoot reads mappings of ids.
func FuzzHostRoot(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, mappings string) {
		id, err := hostRoot(mappings)
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Fatalf("error is not an invalid argument: %v", err)
		}
		if err == nil && (id < 0 || id >= 1<<32-1) {
			t.Fatalf("%q maps root to %d", mappings, id)
		}
	})
}

// seeds checks that the seed corpus of the target is there; the fuzzer adds it by itself.
func seeds(f *testing.F) {
	f.Helper()
	files, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(files) < 3 {
		f.Fatalf("%d seeds (%v)", len(files), err)
	}
}

func TestHostRoot(t *testing.T) {
	for mappings, want := range map[string]int{"0:1000:1": 1000, "1:2:3,0:7:9": 7, "0:0:4294967295": 0} {
		if id, err := hostRoot(mappings); err != nil || id != want {
			t.Errorf("%q maps root to %d (%v), want %d", mappings, id, err, want)
		}
	}
	for _, mappings := range []string{"", "x", "1:2:3", "0:1:0", "0:-1:1", "0:4294967295:1", strings.Repeat(",", 100)} {
		if id, err := hostRoot(mappings); err == nil {
			t.Errorf("%q maps root to %d, want an error", mappings, id)
		}
	}
}
