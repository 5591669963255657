package lazyfs

import (
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// The CID of a file of one leaf does not prove its size: a lying image may claim another
// than an honest one. What nobody contradicts is believed, since a read by a false claim
// fails. Claims that differ are settled by the content, before the kernel is told a size
// that it would keep: the file is fetched, and the claim that fits it is the answer, to
// all. When a contradiction comes up later, the kernel is made to look the file up again. What
// it was told changes in no other way: a read that is shorter or longer than the kernel
// expects would be filled up with zeroes, or cut.

// claim is what some layer says of a file.
type claim struct {
	file ipfs.File
	path string
}

func (fs *fileSystem) claims(c cid.Cid) []claim {
	var claims []claim
	for f, path := range fs.files.Claims(c) {
		if !plausible(f, c) {
			fs.log.Error("refused a file whose size cannot be that of its CID", "path", path, "cid", c.String(), "size", f.Size)
			f.Size = -1 // no content will fit it
		}
		claims = append(claims, claim{f, path})
	}
	return claims
}

// settle returns the file with this CID: ENOENT if nobody knows it.
func (fs *fileSystem) settle(interrupted <-chan struct{}, caller fuse.Caller, c cid.Cid) (ipfs.File, error) {
	claims := fs.claims(c)
	switch {
	case len(claims) == 0:
		return ipfs.File{}, syscall.ENOENT
	case len(claims) == 1 && claims[0].file.Size < 0:
		return ipfs.File{}, ipfs.ErrFile
	case len(claims) == 1:
		return claims[0].file, nil
	}
	if f, ok := fs.proven(claims); ok {
		return f, nil
	}
	ctx, stop := fs.waitContext(interrupted, caller)
	defer stop()
	err := fmt.Errorf("%w: no size that is claimed fits", ipfs.ErrFile)
	for _, claim := range claims {
		// When it is read by a claim, true or not, the content is here afterwards.
		if claim.file.Size >= 0 {
			_, err = fs.rd.ReadAt(ctx, claim.file, make([]byte, 1), 0)
			break
		}
	}
	if f, ok := fs.proven(claims); ok {
		return f, nil
	}
	if err == nil {
		err = errNotHere
	}
	fs.errors.Add(1)
	fs.log.Error("cannot find out the size of a file on which images differ", "path", claims[0].path, "other", claims[1].path, "cid", c.String(), "error", err)
	return ipfs.File{}, err
}

// proven returns the claim that fits the content, if that is here, and names the others.
func (fs *fileSystem) proven(claims []claim) (ipfs.File, bool) {
	for i, c := range claims {
		if c.file.Size < 0 || !fs.here(c.file) {
			continue
		}
		for j, other := range claims {
			if i != j {
				fs.log.Error("an image lies about the size of a file", "path", other.path, "cid", c.file.Cid.String(), "claimed", other.file.Size, "size", c.file.Size)
			}
		}
		return c.file, true
	}
	return ipfs.File{}, false
}

func (fs *fileSystem) here(f ipfs.File) bool {
	object, ok := fs.rd.Local(f)
	return ok && object.Close() == nil
}

// Recheck is called when Files knows a new layer, whose file with a CID find returns: what
// the kernel was told of a file, unproven and otherwise, it has to ask for again.
func (s *Server) Recheck(find func(c cid.Cid) (ipfs.File, bool)) {
	for _, n := range s.fs.nodes.all() {
		f, ok := find(n.cid)
		if known := n.file(); !ok || f.Size == known.Size || s.fs.here(known) {
			continue
		}
		s.fs.log.Warn("images differ on the size of a file: its content will settle it", "cid", n.cid.String())
		s.fs.invalidate(n.cid)
	}
}
