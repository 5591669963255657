package convert

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// Blocks are read from the node in batches of at most so many, and about so many bytes.
const (
	batchBlocks = 256
	batchBytes  = 16 << 20
)

// A seeder writes the seeds of one image's layers, the lowest first: no block is in two of them.
type seeder struct {
	node    Node
	dst     Target
	codec   *seed.Codec
	profile []cid.Cid // what comes first, in order
	seen    map[cid.Cid]struct{}
	earlier []*earlier // what these have is not written again
}

func newSeeder(node Node, dst Target, profile []byte, since []*earlier) (*seeder, error) {
	codec, err := seed.NewCodec()
	if err != nil {
		return nil, err
	}
	s := &seeder{node: node, dst: dst, codec: codec, seen: map[cid.Cid]struct{}{}, earlier: since}
	if profile != nil {
		if s.profile, err = layer.DecodeProfile(profile); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// push writes the seed of a layer to the target, and tells progress. Of info the size is not known yet.
func (s *seeder) push(ctx context.Context, root ipfs.Block, info LayerInfo, p Progress) (*layer.Seed, error) {
	l, err := layer.OpenBlock(ctx, s.node, root)
	if err != nil {
		return nil, err
	}
	for i := range l.Index.Entries {
		if e := &l.Index.Entries[i]; isContent(e) {
			info.Size += e.Size
		}
	}
	progress := p.Layer(info)
	out, err := s.write(ctx, l, root, progress.Read)
	if err != nil {
		progress.Failed(err)
		return nil, err
	}
	progress.Done(LayerReport{Digest: info.Digest, Seed: out.Digest, SeedBytes: out.Size})
	return out, nil
}

// isContent says whether an entry is a regular file that has blocks of its own.
func isContent(e *layer.Entry) bool { return e.Mode.IsRegular() && e.Link < 0 && !e.Whiteout }

// write writes the seed of a layer, and says of each block how many bytes it has.
func (s *seeder) write(ctx context.Context, l *layer.Layer, root ipfs.Block, read func(int64)) (*layer.Seed, error) {
	mount, rest, err := s.mountBlocks(ctx, l)
	if err != nil {
		return nil, err
	}
	out := new(layer.Seed)
	desc, err := s.dst.PushStream(ctx, mediatype.Seed, func(w io.Writer) (err error) {
		out.Head, err = seed.Write(ctx, s.codec, w, counted(s.blocks(ctx, l, rest), read), mount)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Digest, out.Size = desc.Digest, desc.Size
	return out, nil
}

// counted yields the same blocks, and says of each how many bytes it has.
func counted(blocks iter.Seq2[ipfs.Block, error], read func(int64)) iter.Seq2[ipfs.Block, error] {
	return func(yield func(ipfs.Block, error) bool) {
		for b, err := range blocks {
			if read(int64(len(b.Data))); !yield(b, err) {
				return
			}
		}
	}
}

// mountBlocks returns what a layer is mounted by, its root and its index, and what of that is too
// much to be read at once.
func (s *seeder) mountBlocks(ctx context.Context, l *layer.Layer) (mount, rest []ipfs.Block, err error) {
	s.seen[l.Root.Cid] = struct{}{}
	mount, size := []ipfs.Block{l.Root}, len(l.Root.Data)
	for b, err := range s.below(ctx, l.IndexCid, true) {
		if err != nil {
			return nil, nil, err
		}
		if size += len(b.Data); size > seed.MaxMount {
			rest = append(rest, b)
		} else {
			mount = append(mount, b)
		}
	}
	return mount, rest, nil
}

// blocks returns all other blocks of a layer that no seed below has.
func (s *seeder) blocks(ctx context.Context, l *layer.Layer, rest []ipfs.Block) iter.Seq2[ipfs.Block, error] {
	return func(yield func(ipfs.Block, error) bool) {
		for _, b := range rest {
			if !yield(b, nil) {
				return
			}
		}
		more := s.leaves(ctx, l, yield) && s.nodes(ctx, l, yield)
		for _, root := range []cid.Cid{l.TarSplit, l.Shadowed} {
			for b, err := range s.below(ctx, root, false) {
				if !more {
					return
				}
				more = yield(b, err)
			}
		}
	}
}

// note notes a block, and says whether it was not noted before.
func (s *seeder) note(c cid.Cid) bool {
	_, known := s.seen[c]
	s.seen[c] = struct{}{}
	return !known
}

// inEarlier says whether an earlier seed has a block.
func (s *seeder) inEarlier(c cid.Cid) bool {
	return slices.ContainsFunc(s.earlier, func(e *earlier) bool { return e.has(c) })
}

// isNew notes a block, and says whether it was not noted before and no earlier seed has it.
func (s *seeder) isNew(c cid.Cid) bool { return s.note(c) && !s.inEarlier(c) }

// leaves yields the leaves of a layer's files: those of the profile in its order, and then those
// of the index.
func (s *seeder) leaves(ctx context.Context, l *layer.Layer, yield func(ipfs.Block, error) bool) bool {
	b := &batch{seeder: s, yield: yield}
	if len(s.profile) > 0 {
		files := filesOf(l.Index)
		for _, c := range s.profile {
			f, ok := files[c]
			if !ok {
				continue
			}
			if c.Type() == cid.Raw { // a leaf, perhaps of a larger file
				if !b.add(ctx, c, f.Size) {
					return false
				}
			} else if !b.addFile(ctx, f) {
				return false
			}
		}
	}
	for i := range l.Index.Entries {
		if e := &l.Index.Entries[i]; isContent(e) && !b.addFile(ctx, e.File()) {
			return false
		}
	}
	return b.flush(ctx)
}

// filesOf returns the files of an index by their CID, and by those of their leaves.
func filesOf(x *layer.Index) map[cid.Cid]ipfs.File {
	files := map[cid.Cid]ipfs.File{}
	for i := range x.Entries {
		e := &x.Entries[i]
		if !isContent(e) {
			continue
		}
		f := e.File()
		files[f.Cid] = f
		for j := range f.NumLeaves() {
			files[f.Leaf(j)] = ipfs.File{Size: int64(f.LeafLen(j))}
		}
	}
	return files
}

// nodes yields the dag-pb nodes above the leaves.
func (s *seeder) nodes(ctx context.Context, l *layer.Layer, yield func(ipfs.Block, error) bool) bool {
	more := true
	_, err := layer.BuildRootfs(ctx, l.Index, func(b ipfs.Block) error {
		if more && s.isNew(b.Cid) {
			more = yield(b, nil)
		}
		return nil
	})
	if err != nil {
		return yield(ipfs.Block{}, err) && more
	}
	return more
}

// below yields the blocks of a small DAG that no seed has, the root first; with mount, those as well that earlier ones have: what a layer is
// mounted by is read at once. Below what an earlier seed has there may be what it has not.
func (s *seeder) below(ctx context.Context, root cid.Cid, mount bool) iter.Seq2[ipfs.Block, error] {
	return func(yield func(ipfs.Block, error) bool) {
		waiting := []cid.Cid{root}
		for len(waiting) > 0 {
			c := waiting[len(waiting)-1]
			waiting = waiting[:len(waiting)-1]
			if !c.Defined() || !s.note(c) || c.Type() == cid.Raw && !mount && s.inEarlier(c) {
				continue
			}
			data, err := s.node.Get(ctx, c)
			var links []cid.Cid
			b := ipfs.Block{Cid: c, Data: data}
			if err == nil {
				links, err = ipfs.Links(b)
			}
			if (err != nil || mount || !s.inEarlier(c)) && !yield(b, err) || err != nil {
				return
			}
			for i := len(links) - 1; i >= 0; i-- {
				waiting = append(waiting, links[i])
			}
		}
	}
}

// A batch is leaves that are read from the node together.
type batch struct {
	*seeder
	yield func(ipfs.Block, error) bool
	cids  []cid.Cid
	size  int64
}

func (b *batch) addFile(ctx context.Context, f ipfs.File) bool {
	for i := range f.NumLeaves() {
		if !b.add(ctx, f.Leaf(i), int64(f.LeafLen(i))) {
			return false
		}
	}
	return true
}

// add adds a leaf, if no seed has it.
func (b *batch) add(ctx context.Context, c cid.Cid, size int64) bool {
	if !b.isNew(c) {
		return true
	}
	if len(b.cids) >= batchBlocks || b.size+size > batchBytes {
		if !b.flush(ctx) {
			return false
		}
	}
	b.cids, b.size = append(b.cids, c), b.size+size
	return true
}

// flush yields what was added, in its order.
func (b *batch) flush(ctx context.Context) bool {
	got := make(map[cid.Cid]ipfs.Block, len(b.cids))
	err := b.node.Fetch(ctx, b.cids, func(block ipfs.Block) error {
		got[block.Cid] = block
		return nil
	})
	if err != nil {
		return b.yield(ipfs.Block{}, err)
	}
	for _, c := range b.cids {
		if !b.yield(got[c], nil) {
			return false
		}
	}
	b.cids, b.size = nil, 0
	return true
}

// imageSeeds are those of one image: of its layers, and of others that have what those have not got.
type imageSeeds struct {
	of    map[layerKey]*layer.Seed
	since []layer.Seed
}

// pushSeeds writes the seeds of an image, if that is wanted.
func (p *publisher) pushSeeds(ctx context.Context, im *image) (out imageSeeds, err error) {
	if !p.seeds {
		return out, nil
	}
	since, err := p.sinceSeeds(ctx, im)
	if err != nil {
		return out, err
	}
	for _, e := range since {
		out.since = append(out.since, e.Seed)
	}
	s, err := newSeeder(p.node, p.dst, p.profile, since)
	if err != nil {
		return out, err
	}
	out.of = map[layerKey]*layer.Seed{}
	for i, l := range im.layers {
		if out.of[l.key()] != nil {
			continue
		}
		info := LayerInfo{Number: i + 1, Total: len(im.layers), Digest: p.layers[l.key()].digest, Seed: true}
		if out.of[l.key()], err = s.push(ctx, p.layers[l.key()].root, info, p.progress); err != nil {
			return out, fmt.Errorf("seed of layer %s: %w", p.layers[l.key()].digest, err)
		}
	}
	return out, nil
}

// seedsManifest returns the manifest that binds seeds, image record and profile to an image, so that registries
// keep them, and whoever copies the image copies them (spec/seed.md, "Beside an image").
func (p *publisher) seedsManifest(ctx context.Context, im *image, subject document, hints []ocispec.Descriptor, seeds imageSeeds) (document, error) {
	empty := ocispec.DescriptorEmptyJSON
	if err := p.dst.Push(ctx, bare(empty), empty.Data); err != nil {
		return document{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: mediatype.Seeds, Config: bare(empty), Layers: hints,
		Subject: &ocispec.Descriptor{MediaType: subject.desc.MediaType, Digest: subject.desc.Digest, Size: subject.desc.Size},
	}
	written := map[layerKey]bool{}
	for _, l := range im.layers {
		if written[l.key()] {
			continue
		}
		written[l.key()] = true
		d := seedDescriptor(*seeds.of[l.key()])
		d.Annotations[mediatype.AnnotationSeedLayer] = p.layers[l.key()].digest.String()
		manifest.Layers = append(manifest.Layers, d)
	}
	for _, s := range seeds.since {
		manifest.Layers = append(manifest.Layers, seedDescriptor(s))
	}
	doc, err := newDocument(manifest.MediaType, manifest)
	if err != nil {
		return document{}, err
	}
	doc.desc.ArtifactType = mediatype.Seeds
	doc.desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	doc.desc.Annotations = map[string]string{mediatype.AnnotationSeedsOf: subject.desc.Digest.String()}
	return doc, nil
}

func seedDescriptor(s layer.Seed) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: mediatype.Seed, Digest: s.Digest, Size: s.Size,
		Annotations: map[string]string{mediatype.AnnotationSeedHead: strconv.FormatInt(s.Head, 10)},
	}
}
