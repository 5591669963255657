package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// Restore makes an ordinary image of an ipcs image again. The tar of each ipcs layer is
// rebuilt, and compressed if that is wanted; ordinary layers are copied. Config and manifest
// are those of the original that travels with the image, with the new layers. An image that
// was made of an ipcs image, by a commit say, has no original: its config is rewritten.
func Restore(ctx context.Context, opts Options) (*Report, error) {
	start := time.Now()
	w, ims, err := opts.begin(ctx, checkTarOrIpcs, true)
	if err != nil {
		return nil, err
	}
	r := &restorer{
		src: opts.Source, dst: opts.Target, node: opts.Node, compression: opts.Compression,
		progress: opts.Progress, workers: opts.Workers, maxTar: opts.MaxTar, large: newTurn(), done: map[restoreKey]*restored{},
	}
	report, err := r.restore(ctx, ims, w.annotations)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", opts.Source, err)
	}
	opts.finish(report, start)
	return report, nil
}

// A restorer makes ordinary layers.
type restorer struct {
	src         Source
	dst         Target
	node        Node
	compression string
	progress    Progress
	workers     int
	maxTar      int64
	large       turn
	done        map[restoreKey]*restored
}

// A restoreKey tells layers apart: a layer may become blobs of different media types.
type restoreKey struct {
	layer     digest.Digest
	diffID    digest.Digest // that its tar must have; empty if nobody knows
	mediaType string        // that it becomes
}

// A restored layer.
type restored struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	report LayerReport
}

// A restoring is an image on its way back.
type restoring struct {
	image    *image
	original *image // nil if there is none
	keys     []restoreKey
}

func (r *restorer) restore(ctx context.Context, ims []*image, annotations map[string]string) (*Report, error) {
	var list []restoring
	held := 0
	for _, im := range ims {
		one, err := r.plan(im)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", im.desc.Digest, err)
		}
		if one.original != nil {
			if held += one.original.size(); held > maxDocuments {
				return nil, errDocuments
			}
		}
		list = append(list, one)
	}
	if err := r.layers(ctx, list); err != nil {
		return nil, err
	}
	report := &Report{}
	var manifests []document
	for _, one := range list {
		m, err := r.manifest(ctx, one)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", one.image.desc.Digest, err)
		}
		manifests = append(manifests, m)
		report.Manifests = append(report.Manifests, r.report(one, m.desc.Digest))
	}
	var err error
	report.Digest, err = tag(ctx, r.dst, manifests, annotations)
	return report, err
}

// plan finds the original, and says what each layer has to become.
func (r *restorer) plan(im *image) (restoring, error) {
	orig, err := im.original()
	if err != nil {
		orig = nil
		r.progress.Note(fmt.Sprintf("manifest %s: its config is rewritten, and has another digest than that of an original: %v", im.desc.Digest, err))
	}
	out := restoring{image: im, original: orig}
	for i, l := range im.layers {
		key := restoreKey{layer: l.desc.Digest, mediaType: tarType(r.compression, isDocker(im.desc.MediaType))}
		if l.desc.MediaType != mediatype.Layer {
			key.mediaType = l.desc.MediaType
		}
		switch {
		case orig != nil:
			key.diffID = orig.layers[i].diffID
			key.mediaType = tarType(r.compression, isDocker(orig.layers[i].desc.MediaType))
		case l.desc.MediaType != mediatype.Layer || im.kept():
			key.diffID = l.diffID
		case l.desc.Annotations[mediatype.AnnotationDiffID] != "":
			key.diffID = digest.Digest(l.desc.Annotations[mediatype.AnnotationDiffID])
			if err := key.diffID.Validate(); err != nil {
				return out, fmt.Errorf("layer %s: %w: original diffID %q: %w", l.desc.Digest, ErrCorrupt, key.diffID, err)
			}
		}
		out.keys = append(out.keys, key)
	}
	return out, nil
}

// layers restores every distinct layer once.
func (r *restorer) layers(ctx context.Context, list []restoring) error {
	type job struct {
		layer sourceLayer
		key   restoreKey
	}
	var jobs []job
	for _, one := range list {
		for i, key := range one.keys {
			if r.done[key] == nil {
				r.done[key] = new(restored)
				jobs = append(jobs, job{one.image.layers[i], key})
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.workers)
	for i, j := range jobs {
		info := LayerInfo{Number: i + 1, Total: len(jobs), Digest: j.layer.desc.Digest, Size: j.layer.desc.Size}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.layer(ctx, j.layer, j.key, info); err != nil {
				return fmt.Errorf("layer %s: %w", j.layer.desc.Digest, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (r *restorer) layer(ctx context.Context, l sourceLayer, key restoreKey, info LayerInfo) error {
	if l.desc.MediaType != mediatype.Layer {
		return r.copy(ctx, l, key, info)
	}
	tar, err := openTar(ctx, r.node, l.desc, r.maxTar)
	if err != nil {
		return err
	}
	done, err := r.large.takeFor(ctx, tar)
	if err != nil {
		return err
	}
	defer done()
	info.Size = tar.Size
	return r.write(l, key, info, func(progress LayerProgress, out *restored) error {
		out.report = LayerReport{Cid: tar.Root().Cid.String(), Bytes: tar.Size, Files: tar.Files()}
		desc, err := r.dst.PushStream(ctx, key.mediaType, func(w io.Writer) error {
			zip, err := compress(w, r.compression)
			if err != nil {
				return err
			}
			sum := newSummer(zip)
			if blob, ok := w.(*summer); ok && r.compression == None {
				sum = blob // it hashes the same bytes
			}
			if err := tar.Write(ctx, reporting{sum, progress}); err != nil {
				return errors.Join(err, zip.Close())
			}
			out.diffID = sum.digest()
			if key.diffID != "" && out.diffID != key.diffID {
				err = fmt.Errorf("%w: its tar has the digest %s, and the diffID of the original is %s", ErrCorrupt, out.diffID, key.diffID)
			}
			return errors.Join(err, zip.Close())
		})
		out.desc = desc
		return err
	})
}

// write runs make with progress, and keeps what it made.
func (r *restorer) write(l sourceLayer, key restoreKey, info LayerInfo, make func(LayerProgress, *restored) error) error {
	progress, out := r.progress.Layer(info), r.done[key]
	if err := make(progress, out); err != nil {
		progress.Failed(err)
		return err
	}
	out.report.Source, out.report.DiffID, out.report.Digest = l.desc.Digest, out.diffID, out.desc.Digest
	progress.Done(out.report)
	return nil
}

// copy copies an ordinary layer of an image that has both kinds.
func (r *restorer) copy(ctx context.Context, l sourceLayer, key restoreKey, info LayerInfo) error {
	return r.write(l, key, info, func(progress LayerProgress, out *restored) error {
		rc, err := r.src.Fetch(ctx, l.desc)
		if err != nil {
			return err
		}
		defer rc.Close()
		blob, err := newVerifier(sourceReader{rc}, l.desc, progress.Read)
		if err != nil {
			return err
		}
		out.diffID = l.diffID
		out.desc, err = r.dst.PushStream(ctx, key.mediaType, func(w io.Writer) error {
			_, err := io.Copy(w, blob)
			return err
		})
		return err
	})
}

// manifest pushes the config, and returns the manifest.
func (r *restorer) manifest(ctx context.Context, one restoring) (document, error) {
	var layers []ocispec.Descriptor
	var diffIDs []digest.Digest
	for i, key := range one.keys {
		layers, diffIDs = append(layers, one.descriptor(i, r.done[key].desc)), append(diffIDs, r.done[key].diffID)
	}
	make := one.image.rewrite
	if one.original != nil {
		make = one.original.restore
	}
	manifest, config, err := make(layers, diffIDs)
	if err != nil {
		return document{}, err
	}
	if err := r.dst.Push(ctx, config.desc, config.data); err != nil {
		return document{}, fmt.Errorf("config: %w", err)
	}
	manifest.desc.Platform, manifest.desc.Annotations = &one.image.platform, one.image.desc.Annotations
	return manifest, nil
}

// descriptor is the descriptor of a layer that was made, for a manifest. Where that is the
// original's blob, nothing of it changes. Otherwise what speaks of the layer, and not of the
// blob that it was, goes with it.
func (one restoring) descriptor(i int, made ocispec.Descriptor) ocispec.Descriptor {
	had := one.image.layers[i].desc
	if one.original != nil {
		had = one.original.layers[i].desc
		if sameBlob(made, had) {
			return had
		}
	}
	made.Annotations = layerAnnotations(had)
	return made
}

func (r *restorer) report(one restoring, manifest digest.Digest) ManifestReport {
	out := newManifestReport(one.image, manifest)
	if one.original != nil {
		out.Original = one.original.desc.Digest
	}
	for _, key := range one.keys {
		out.Layers = append(out.Layers, r.done[key].report)
	}
	return out
}

// openTar opens the tar of an ipcs layer, of at most so many bytes.
func openTar(ctx context.Context, node layer.Source, desc ocispec.Descriptor, most int64) (*layer.Tar, error) {
	root, err := mediatype.RootCid(desc.Digest)
	if err != nil {
		return nil, err
	}
	tar, err := layer.OpenTar(ctx, node, root)
	if err == nil && tar.Size > most {
		err = fmt.Errorf("%w: its tar has %d bytes, more than the %d allowed", ErrUnsupported, tar.Size, most)
	}
	return tar, err
}

// reporting tells progress what is written.
type reporting struct {
	io.Writer
	progress LayerProgress
}

func (r reporting) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	r.progress.Read(int64(n))
	return n, err
}
