//go:build linux

package snapshotter

import (
	"iter"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
)

// ChainStatus says how one chain of ipcs layers stands.
type ChainStatus struct {
	ID     string // names the chain for ChainFiles
	Layers int
	// Files are distinct objects that a mount of the chain shows. Before a process has mounted it,
	// those that upper layers hide count, too.
	Files   int
	Bytes   int64 // of them
	Mounted bool
	Mode    ImageMode // how its metadata is mounted
	Data    DataMode  // how overlays on it get at data
	// Image is the chainID of the image that containers use it for; empty if none does.
	Image digest.Digest
	Fill  FillState
}

// Status lists the chains that images end in, and others that are mounted, sorted by ID.
// After a restart the files of a chain are not known before it is used.
func (s *Snapshotter) Status() []ChainStatus {
	tops := s.chains.tops()
	list := make([]ChainStatus, 0, len(tops))
	for _, c := range tops {
		st := ChainStatus{ID: c.run.id, Layers: len(c.run.roots), Mode: s.support.image, Data: s.support.data}
		st.Mounted = isImageMount(s.chains.mountPoint(c.run.id))
		st.Image, st.Fill = s.ahead.of(c.run.roots[len(c.run.roots)-1])
		for f := range s.ChainFiles(c.run.id) {
			st.Files++
			st.Bytes += f.Size
		}
		list = append(list, st)
	}
	return list
}

// ChainFiles yields the objects that ChainStatus counts.
func (s *Snapshotter) ChainFiles(id string) iter.Seq[ipfs.File] {
	return func(yield func(ipfs.File) bool) {
		if c, ok := s.chains.get(id); ok {
			if tables := s.files.inOrder(c.run.roots); tables != nil {
				distinct(tables, c.shownFiles(), yield)
			} else { // some are not known yet
				distinct(s.files.tables(c.run.roots), nil, yield)
			}
		}
	}
}

// LayerRoots returns the roots of the layers that snapshots use.
func (s *Snapshotter) LayerRoots() []cid.Cid { return s.files.roots() }

// Supported says whether this host can mount ipcs layers; the error is ErrUnsupported.
func (s *Snapshotter) Supported() error { return s.support.err }

// Neighbours implements Files.
func (s *Snapshotter) Neighbours(f ipfs.File) iter.Seq[ipfs.File] { return s.files.neighbours(f) }

// Claims implements Files.
func (s *Snapshotter) Claims(c cid.Cid) iter.Seq2[ipfs.File, string] { return s.files.claims(c) }
