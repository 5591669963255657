package imagedir

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// Contents is what an image consists of, all of which was put on the node before.
type Contents struct {
	Top    ocispec.Descriptor      // of the manifest or index
	Blobs  map[digest.Digest]int64 // sizes in bytes of all blobs, manifests and layers included
	Layers []ipfs.Block            // layer roots
	Hints  map[cid.Cid]int64       // sizes in bytes of image records and profiles, raw blocks
}

// Write puts the directory of an image on a node and returns its root. The same contents give
// the same root.
func Write(ctx context.Context, dst ipfs.Putter, c Contents) (cid.Cid, error) {
	var w writer
	var blobs, layers, hints []layer.Link
	for d, size := range c.Blobs {
		id, err := mediatype.BlobCid(d)
		if err != nil {
			return cid.Undef, err
		}
		blobs = append(blobs, layer.Link{Name: d.Encoded(), Cid: id, Size: uint64(size)})
	}
	for _, root := range c.Layers {
		d, err := mediatype.LayerDigest(root.Cid)
		if err != nil {
			return cid.Undef, err
		}
		size, err := layer.DagSize(root)
		if err != nil {
			return cid.Undef, err
		}
		layers = append(layers, layer.Link{Name: d.Encoded(), Cid: root.Cid, Size: size})
	}
	for id, size := range c.Hints {
		hints = append(hints, layer.Link{Name: id.String(), Cid: id, Size: uint64(size)})
	}
	top := w.directory("", []layer.Link{
		w.file(nameLayout, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}),
		w.file(nameIndex, index(c.Top)),
		w.directory(nameBlobs, []layer.Link{w.directory(nameSHA256, blobs)}),
		w.directory(nameLayers, layers),
		w.directory(nameHints, hints),
	})
	err := w.err
	if err == nil {
		err = dst.Put(ctx, w.blocks...)
	}
	if err != nil {
		return cid.Undef, fmt.Errorf("make the directory of image %s: %w", c.Top.Digest, err)
	}
	return top.Cid, nil
}

// index is the index.json of an image.
func index(top ocispec.Descriptor) ocispec.Index {
	return ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{
			MediaType: top.MediaType, Digest: top.Digest, Size: top.Size,
			Annotations: map[string]string{ocispec.AnnotationRefName: DefaultTag},
		}},
	}
}

// A writer makes files and directories, until the first error.
type writer struct {
	blocks []ipfs.Block
	err    error
}

// add takes a block, and returns the link to it.
func (w *writer) add(name string, size uint64, b ipfs.Block, err error) layer.Link {
	if w.err == nil {
		w.err = err
	}
	w.blocks = append(w.blocks, b)
	return layer.Link{Name: name, Cid: b.Cid, Size: size}
}

// file makes a file of JSON.
func (w *writer) file(name string, v any) layer.Link {
	text, err := json.Marshal(v)
	if err != nil {
		return w.add(name, 0, ipfs.Block{}, err)
	}
	b, err := ipfs.NewBlock(cid.Raw, text)
	return w.add(name, uint64(len(text)), b, err)
}

func (w *writer) directory(name string, links []layer.Link) layer.Link {
	if w.err != nil {
		return layer.Link{}
	}
	b, err := layer.NewDirectory(links)
	if err != nil {
		return w.add(name, 0, b, err)
	}
	size, err := layer.DagSize(b)
	return w.add(name, size, b, err)
}
