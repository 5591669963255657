package imagedir

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/jsonlist"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// openDirectory reads what makes a directory an OCI image layout: the tags and the list of
// blobs. After the root, that takes two round trips.
func (im *Image) openDirectory(ctx context.Context, root ipfs.Block) error {
	names, err := readNames(root)
	if err != nil {
		return err
	}
	version, haveVersion := names.get(nameLayout, cid.Raw)
	index, haveIndex := names.get(nameIndex, cid.Raw)
	blobs, haveBlobs := names.get(nameBlobs, cid.DagProtobuf)
	if !haveVersion || !haveIndex || !haveBlobs {
		return fmt.Errorf("%w: its directory has not both files %s and %s, of one block, and the folder %s", ErrImage, nameLayout, nameIndex, nameBlobs)
	}
	blocks, err := fetch(ctx, im.src, version, index, blobs)
	if err != nil {
		return err
	}
	if err := checkVersion(blocks[0].Data); err != nil {
		return fmt.Errorf("%w: its %s: %w", ErrImage, nameLayout, err)
	}
	if im.tags, err = readIndex(blocks[1].Data); err != nil {
		return fmt.Errorf("%w: its %s: %w", ErrImage, nameIndex, err)
	}
	if names, err = readNames(blocks[2]); err != nil {
		return err
	}
	sums, ok := names.get(nameSHA256, cid.DagProtobuf)
	if !ok {
		return fmt.Errorf("%w: it has no folder %s/%s", ErrImage, nameBlobs, nameSHA256)
	}
	if blocks, err = fetch(ctx, im.src, sums); err != nil {
		return err
	}
	if names, err = readNames(blocks[0]); err != nil {
		return err
	}
	im.blobs = make(map[digest.Digest]cid.Cid, len(names))
	for name, c := range names {
		if d := digest.NewDigestFromEncoded(digest.SHA256, name); d.Validate() == nil {
			im.blobs[d] = c
		}
	}
	return nil
}

// dirNames are the names of a directory.
type dirNames map[string]cid.Cid

func readNames(b ipfs.Block) (dirNames, error) {
	links, err := layer.ReadDirectory(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	names := make(dirNames, len(links))
	for _, l := range links {
		names[l.Name] = l.Cid
	}
	return names, nil
}

// get returns what has a name, if that is a block of this codec.
func (n dirNames) get(name string, codec uint64) (cid.Cid, bool) {
	c, ok := n[name]
	return c, ok && c.Type() == codec
}

func checkVersion(data []byte) error {
	var v ocispec.ImageLayout
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if v.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("it is of version %.40q, and only %s is known", v.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// readIndex returns the digests of an index.json by their tags. The only image that there is
// need not have a name.
func readIndex(data []byte) (map[string]digest.Digest, error) {
	fields, err := object(data, "manifests")
	if err != nil {
		return nil, err
	}
	list, err := jsonlist.Decode[struct {
		Digest      digest.Digest   `json:"digest"`
		Annotations json.RawMessage `json:"annotations"`
	}](fields["manifests"], maxInList)
	if err != nil {
		return nil, err
	}
	tags := make(map[string]digest.Digest)
	for i, m := range list {
		if err := m.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("image %d: %w", i+1, err)
		}
		var annotations struct {
			Name string `json:"org.opencontainers.image.ref.name"`
		}
		if len(m.Annotations) > 0 {
			if err := json.Unmarshal(m.Annotations, &annotations); err != nil {
				return nil, fmt.Errorf("image %d: its annotations: %w", i+1, err)
			}
		}
		switch other, twice := tags[annotations.Name]; {
		case annotations.Name == "":
		case twice && other != m.Digest:
			return nil, fmt.Errorf("it has two images with the name %.128q", annotations.Name)
		default:
			tags[annotations.Name] = m.Digest
		}
	}
	if len(tags) == 0 && len(list) == 1 {
		tags[DefaultTag] = list[0].Digest
	}
	return tags, nil
}
