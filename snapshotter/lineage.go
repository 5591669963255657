//go:build linux

package snapshotter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
)

// A link is one committed snapshot of a chain.
type link struct {
	id, name string
	root     cid.Cid       // the layer root of an ipcs snapshot, else Undef
	chain    digest.Digest // chainID on record; may be empty for ordinary snapshots

	hints // of an ipcs snapshot
}

func (l *link) lazy() bool { return l.root.Defined() }

// lineage returns the snapshot name and its parents, top first. It needs a transaction.
func lineage(ctx context.Context, name string) ([]link, error) {
	var links []link
	for name != "" {
		id, info, _, err := storage.GetInfo(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("parent snapshot %s: %w", name, err)
		}
		l := link{id: id, name: name, chain: digest.Digest(info.Labels[snapshots.LabelSnapshotRef])}
		if root := info.Labels[labelRoot]; root != "" {
			if l.root, err = cid.Decode(root); err != nil {
				return nil, fmt.Errorf("snapshot %s: layer root on record: %w", name, err)
			}
			l.chain = digest.Digest(info.Labels[labelChain])
			l.hints = readHints(info.Labels)
			l.pulled = info.Labels[labelPulled]
		}
		links = append(links, l)
		name = info.Parent
	}
	return links, nil
}

// imageVersion is part of the name of an EROFS image. It changes when what is written
// into one changes, and then all are built anew.
const imageVersion = 1

// A run is a group of ipcs layers that lie directly on each other in a chain.
type run struct {
	id    string    // names its EROFS image
	roots []cid.Cid // bottom first
	below []link    // what it lies on, an ordinary snapshot first
}

// belowID names what the run lies on; it is empty for nothing.
func (r *run) belowID() string {
	if len(r.below) == 0 {
		return ""
	}
	return r.below[0].id
}

// firstRun returns the run that begins at the first link, which is an ipcs one. Its name
// says what it lies on, if anything: directories that no layer of the run has an entry
// for take owner and mode from there.
func firstRun(links []link) run {
	n := 0
	for n < len(links) && links[n].lazy() {
		n++
	}
	r := run{roots: make([]cid.Cid, 0, n), below: links[n:]}
	h := sha256.New()
	fmt.Fprintf(h, "ipcs chain %d below=%q\n", imageVersion, r.belowID())
	for i := n - 1; i >= 0; i-- {
		r.roots = append(r.roots, links[i].root)
		fmt.Fprintln(h, links[i].root)
	}
	r.id = hex.EncodeToString(h.Sum(nil))
	return r
}

// runs yields the runs among links, the topmost first.
func runs(links []link) iter.Seq[run] {
	return func(yield func(run) bool) {
		for i := 0; i < len(links); {
			if !links[i].lazy() {
				i++
				continue
			}
			r := firstRun(links[i:])
			if !yield(r) {
				return
			}
			i += len(r.roots)
		}
	}
}

// prefixOf says whether the layers of r are the lower ones of o.
func (r *run) prefixOf(o *run) bool {
	if r.belowID() != o.belowID() || len(r.roots) >= len(o.roots) {
		return false
	}
	for i := range r.roots {
		if !r.roots[i].Equals(o.roots[i]) {
			return false
		}
	}
	return true
}
