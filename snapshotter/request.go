//go:build linux

package snapshotter

import (
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/hinshun/ipcs/mediatype"
)

// Labels that this snapshotter keeps for itself. Whoever may change labels could
// otherwise make one layer pass for another, so they are taken out of what comes in.
const (
	labelOwn   = "com.github.hinshun.ipcs.snapshot."
	labelRoot  = labelOwn + "root"  // CID of the layer root; marks an ipcs snapshot
	labelChain = labelOwn + "chain" // chainID that was proven when it was committed

	labelPulled = labelOwn + "pulled" // repository that its image was pulled from first, if containerd said so
)

// labelParentChain is what containerd tells of the parent when it extracts a layer.
const labelParentChain = "containerd.io/snapshot/parent-chain-id"

// A request is what the labels of a Prepare say of an ipcs layer.
type request struct {
	key         string
	root        cid.Cid
	digest      digest.Digest // of the layer descriptor: what root says
	diffID      digest.Digest // what the chainID is made of: digest, but for kept diffIDs
	target      digest.Digest // chainID of the layer
	parentChain digest.Digest // as containerd says it; may be empty
	proven      bool          // containerd gave the diffID, and it is the field diffID
	image       cid.Cid       // image record; Undef if none is named
	peers       []string      // that the image names
	origin      string        // repository that the image was written to
	pulled      string        // that it is pulled from, if containerd says so
}

// parseRequest reads the labels. Without the label of a layer root, or outside of an
// extraction, it returns nil: the snapshot is an ordinary one.
func parseRequest(key string, labels map[string]string) (*request, error) {
	value, ok := labels[mediatype.AnnotationRoot]
	if !ok {
		return nil, nil
	}
	target := labels[snapshots.LabelSnapshotRef]
	if target == "" {
		if isExtraction(key, nil) {
			return nil, fmt.Errorf("layer %s: %w: pull with containerd's transfer service (the default of ctr and CRI; no --local) and --snapshotter ipcs: %w",
				value, ErrNoTarget, errdefs.ErrInvalidArgument)
		}
		return nil, nil
	}
	r := &request{key: key, target: digest.Digest(target), parentChain: digest.Digest(labels[labelParentChain])}
	var err error
	if r.root, err = cid.Decode(value); err != nil {
		return nil, invalid("label %s: %q is no CID: %w", mediatype.AnnotationRoot, value, err)
	}
	if r.digest, err = mediatype.LayerDigest(r.root); err != nil {
		return nil, invalid("label %s: %w", mediatype.AnnotationRoot, err)
	}
	r.diffID = r.digest
	for _, d := range []digest.Digest{r.target, r.parentChain} {
		if err := d.Validate(); d != "" && err != nil {
			return nil, invalid("layer %s: chainID %q: %w", r.digest, d, err)
		}
	}
	if err := r.checkDiffID(labels); err != nil {
		return nil, err
	}
	if value, ok := labels[mediatype.AnnotationImage]; ok {
		// A hint: what cannot be read is as good as none.
		if c, err := cid.Decode(value); err == nil {
			r.image = c
		}
	}
	r.peers, r.origin = namedPeers(labels[mediatype.AnnotationPeers]), labels[mediatype.AnnotationOrigin]
	r.pulled = pulledFrom(labels[labelRef])
	return r, nil
}

// isKept says whether the labels are those of a layer whose image kept its diffIDs.
func isKept(labels map[string]string) bool {
	return labels[mediatype.AnnotationRoot] != "" && labels[mediatype.AnnotationKeep] == "true"
}

// checkDiffID compares what the config of the image calls the layer with its root. A kept
// diffID is that of a tar, which says nothing of the root.
func (r *request) checkDiffID(labels map[string]string) error {
	value, ok := labels[snapshots.LabelSnapshotDiffID]
	diffID := digest.Digest(value)
	if isKept(labels) {
		if err := diffID.Validate(); err != nil {
			return invalid("layer %s: diffID %q: %w", r.digest, value, err)
		}
		r.diffID, r.proven = diffID, true
		return nil
	}
	if !ok {
		return nil
	}
	c, err := mediatype.RootCid(diffID)
	if err != nil {
		return invalid("layer %s: diffID: %w", r.digest, err)
	}
	if !c.Equals(r.root) {
		return contradiction("the image's config has diffID %s, its annotation %s names layer %s (%s)",
			diffID, mediatype.AnnotationRoot, r.digest, r.root)
	}
	r.proven = true
	return nil
}

// verify proves that the target is the chainID of this layer on that parent: links are
// the parent and its parents. The parent's own record counts first; what containerd says
// of the parent is taken only with a diffID, which then has proven the content already.
func (r *request) verify(links []link) error {
	var parent digest.Digest
	switch {
	case len(links) == 0 && r.parentChain != "":
		return contradiction("layer %s lies on %s, but no parent was named", r.digest, r.parentChain)
	case len(links) == 0:
	case links[0].chain != "":
		parent = links[0].chain
		if r.parentChain != "" && r.parentChain != parent {
			return contradiction("layer %s lies on %s, but the parent snapshot %s is %s", r.digest, r.parentChain, links[0].name, parent)
		}
	case r.proven && r.parentChain != "":
		parent = r.parentChain
	default:
		return contradiction("layer %s: its parent snapshot %s has no chainID on record, so its own cannot be checked", r.digest, links[0].name)
	}
	want := r.diffID
	if parent != "" {
		want = identity.ChainID([]digest.Digest{parent, r.diffID})
	}
	if want != r.target {
		return contradiction("layer %s (%s) on %q has the chainID %s, but %s was asked for", r.digest, r.root, parent, want, r.target)
	}
	return nil
}

// isExtraction says whether containerd prepares a snapshot in order to apply a layer to
// it, rather than to run a container.
func isExtraction(key string, labels map[string]string) bool {
	return labels[snapshots.LabelSnapshotRef] != "" || strings.Contains(key, snapshots.UnpackKeyPrefix+"-")
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

func contradiction(format string, args ...any) error {
	return fmt.Errorf("%w: %s: refusing the layer, whose image is broken or forged: %w",
		ErrContradiction, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// namedPeers are the peers in mediatype.AnnotationPeers.
func namedPeers(value string) []string {
	if value == "" || len(value) > mediatype.MaxPeersAnnotation {
		return nil
	}
	return strings.Split(value, ",")
}

// hint tells of peers that an image names. what is that image, or one of its layers.
func (s *Snapshotter) hint(what digest.Digest, peers []string) {
	if s.namePeers == nil || len(peers) == 0 {
		return
	}
	if err := s.namePeers(peers); err != nil {
		s.log.Info("an image names peers that are not used", "image", what, "err", err)
	}
}
