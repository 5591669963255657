package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/mediatype"
)

// ErrUnproven says that an image is not what its original was, or that this cannot be told.
var ErrUnproven = errors.New("the image is not proven to be what it was made from")

// A VerifyReport says what Verify found. Its JSON form is what convert --verify --json
// prints.
type VerifyReport struct {
	Source    string             `json:"source"`
	Manifests []VerifiedManifest `json:"manifests"`
	Seconds   float64            `json:"seconds"`
}

// A VerifiedManifest is one manifest that was verified. Whoever wants to know whether it is
// the image they mean compares Original with the digest of that.
type VerifiedManifest struct {
	Platform string          `json:"platform"`
	Digest   digest.Digest   `json:"digest"`
	Original digest.Digest   `json:"original,omitempty"` // of the manifest it was made from
	Error    string          `json:"error,omitempty"`    // of config and original
	Layers   []VerifiedLayer `json:"layers"`             // bottom first
}

// A VerifiedLayer is one layer that was verified.
type VerifiedLayer struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffID"` // that the original has; empty if nobody knows
	Bytes  int64         `json:"bytes"`  // of the tar
	Error  string        `json:"error,omitempty"`
}

// Verify proves, reading every byte, that an image is what the original that travels with
// it says: each layer gives back a tar with the diffID of the original, and its parts say
// the same as that tar. It goes on after a layer that is not proven, and then returns the
// report with ErrUnproven. Of an index it takes all images, unless opts name platforms.
func Verify(ctx context.Context, opts Options) (*VerifyReport, error) {
	start := time.Now()
	opts.setDefaults()
	opts.AllPlatforms = len(opts.Platforms) == 0
	w, ims, err := opts.load(ctx, checkTarOrIpcs, true)
	if err != nil {
		return nil, err
	}
	v := &prover{src: opts.Source, node: opts.Node, progress: opts.Progress, workers: opts.Workers, maxTar: opts.MaxTar, large: newTurn()}
	report := &VerifyReport{Source: opts.Source.String()}
	proven := true
	for _, im := range ims {
		m, ok, err := v.manifest(ctx, im)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", opts.Source, err)
		}
		report.Manifests = append(report.Manifests, m)
		proven = proven && ok
	}
	for _, desc := range w.originals {
		if !slices.ContainsFunc(beside(ims, desc), func(d digest.Digest) bool {
			return slices.ContainsFunc(report.Manifests, func(m VerifiedManifest) bool { return m.Digest == d && m.Original == desc.Digest })
		}) && (opts.AllPlatforms || len(beside(ims, desc)) > 0) {
			report.Manifests = append(report.Manifests, VerifiedManifest{
				Digest: desc.Digest, Platform: platforms.FormatAll(*desc.Platform), Layers: []VerifiedLayer{},
				Error: fmt.Sprintf("%v: it stands beside an ipcs image that was made of another: hosts without ipcs run something else", ErrUnsupported),
			})
			proven = false
		}
	}
	for _, desc := range w.leftOut {
		report.Manifests = append(report.Manifests, VerifiedManifest{
			Digest: desc.Digest, Layers: []VerifiedLayer{},
			Error: fmt.Sprintf("%v: by its descriptor it is no image, and was left out; but what runs images goes by the platform", ErrUnsupported),
		})
		proven = false
	}
	report.Seconds = time.Since(start).Seconds()
	if !proven {
		return report, fmt.Errorf("verify %s: %w", opts.Source, ErrUnproven)
	}
	return report, nil
}

// A prover verifies manifests.
type prover struct {
	src      Source
	node     Node
	progress Progress
	workers  int
	maxTar   int64
	large    turn
}

// manifest verifies an image. Its error is that of a caller who gave up.
func (v *prover) manifest(ctx context.Context, im *image) (VerifiedManifest, bool, error) {
	out := VerifiedManifest{
		Platform: platforms.FormatAll(im.platform), Digest: im.desc.Digest,
		Layers: make([]VerifiedLayer, len(im.layers)),
	}
	orig, err := im.original()
	if err != nil {
		out.Error = err.Error()
	} else {
		out.Original = orig.desc.Digest
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(v.workers)
	for i, l := range im.layers {
		result := &out.Layers[i]
		result.Digest = l.desc.Digest
		if err == nil {
			result.DiffID = orig.layers[i].diffID
		} else {
			result.DiffID = claimedDiffID(l)
		}
		info := LayerInfo{Number: i + 1, Total: len(im.layers), Digest: l.desc.Digest, Size: l.desc.Size}
		group.Go(func() error { return v.layer(gctx, l, info, result) })
	}
	if err := group.Wait(); err != nil {
		return out, false, err
	}
	ok := out.Error == ""
	for _, l := range out.Layers {
		ok = ok && l.Error == ""
	}
	return out, ok, nil
}

// claimedDiffID is the diffID that a layer itself claims to be made from, for what the proof
// of it is worth.
func claimedDiffID(l sourceLayer) digest.Digest {
	if l.desc.MediaType != mediatype.Layer || isKept(l.desc) {
		return l.diffID
	}
	return digest.Digest(l.desc.Annotations[mediatype.AnnotationDiffID])
}

// layer verifies one layer, and returns an error only when the caller gave up.
func (v *prover) layer(ctx context.Context, l sourceLayer, info LayerInfo, out *VerifiedLayer) error {
	check := v.tar
	if l.desc.MediaType == mediatype.Layer {
		check = v.ipcs
	}
	report, err := check(ctx, l, info)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && out.DiffID == "" {
		err = fmt.Errorf("%w: nothing says which tar it was made from; its own is %s", errNoOriginal, report.DiffID)
	} else if err == nil && report.DiffID != out.DiffID {
		err = fmt.Errorf("%w: its tar has the digest %s, and the diffID of the original is %s", ErrCorrupt, report.DiffID, out.DiffID)
	}
	if err != nil {
		out.Error = err.Error()
		v.progress.Note(fmt.Sprintf("layer %s: %v", l.desc.Digest, err))
	}
	out.Bytes = report.Bytes
	return nil
}

// ipcs reads an ipcs layer.
func (v *prover) ipcs(ctx context.Context, l sourceLayer, info LayerInfo) (LayerReport, error) {
	// Without it, the layer is not mounted lazily.
	root, named := l.desc.Annotations[mediatype.AnnotationRoot]
	if c, err := mediatype.RootCid(l.desc.Digest); err != nil || named && c.String() != root {
		return LayerReport{}, fmt.Errorf("%w: annotation %s is %q, not the CID of the layer's digest", ErrCorrupt, mediatype.AnnotationRoot, root)
	}
	tar, err := openTar(ctx, v.node, l.desc, v.maxTar)
	if err != nil {
		return LayerReport{}, err
	}
	if size := int64(len(tar.Root().Data)); l.desc.Size != size {
		return LayerReport{}, fmt.Errorf("%w: the manifest says that it has %d bytes, it has %d", ErrCorrupt, l.desc.Size, size)
	}
	done, err := v.large.takeFor(ctx, tar)
	if err != nil {
		return LayerReport{}, err
	}
	defer done()
	info.Size = tar.Size
	progress := v.progress.Layer(info)
	proof, err := tar.Verify(ctx, progress.Read)
	if err != nil {
		progress.Failed(err)
		return LayerReport{}, err
	}
	report := LayerReport{DiffID: proof.DiffID, Bytes: proof.Bytes, Files: proof.Files, Digest: l.desc.Digest, Cid: tar.Root().Cid.String()}
	progress.Done(report)
	return report, nil
}

// tar reads an ordinary layer of an image that has both kinds.
func (v *prover) tar(ctx context.Context, l sourceLayer, info LayerInfo) (LayerReport, error) {
	progress := v.progress.Layer(info)
	report, err := v.readTar(ctx, l, progress)
	if err != nil {
		progress.Failed(err)
		return report, err
	}
	progress.Done(report)
	return report, nil
}

func (v *prover) readTar(ctx context.Context, l sourceLayer, progress LayerProgress) (LayerReport, error) {
	rc, err := v.src.Fetch(ctx, l.desc)
	if err != nil {
		return LayerReport{}, err
	}
	defer rc.Close()
	blob, err := newVerifier(sourceReader{rc}, l.desc, progress.Read)
	if err != nil {
		return LayerReport{}, err
	}
	tar, err := decompress(blob)
	if err != nil {
		return LayerReport{}, err
	}
	sum := newSummer(io.Discard)
	_, err = io.Copy(sum, tar)
	// Closing waits for the decompressor's goroutines: blob is ours after it.
	err = errors.Join(err, tar.Close())
	if _, rerr := io.Copy(io.Discard, blob); err == nil {
		err = rerr
	}
	return LayerReport{Digest: l.desc.Digest, DiffID: sum.digest(), Bytes: sum.size}, err
}
