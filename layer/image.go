package layer

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
)

// imageVersion is the version of image records that this package writes and reads.
const imageVersion = 1

// An Image is the image record: it lists the layers of a whole image, so that a
// snapshotter that is shown one layer can fetch the others at once. All of it is a hint:
// the manifest says what an image is made of.
type Image struct {
	Version int          `json:"version"`           // 1; EncodeImage sets it
	Layers  []ImageLayer `json:"layers"`            // bottom first
	Peers   []string     `json:"peers,omitempty"`   // multiaddrs that had the image
	Profile string       `json:"profile,omitempty"` // CID of what the image is known to read
	Origin  string       `json:"origin,omitempty"`  // repository of a registry that has the seeds, as HOST/NAME
	Seeds   []Seed       `json:"seeds,omitempty"`   // of other images, that have what those of the layers have not got
}

// AllSeeds returns the seeds of the layers, and then those of other images, each once.
func (m *Image) AllSeeds() (seeds []Seed) {
	for _, l := range m.Layers {
		if l.Seed != nil && !slices.Contains(seeds, *l.Seed) {
			seeds = append(seeds, *l.Seed)
		}
	}
	for _, s := range m.Seeds {
		if !slices.Contains(seeds, s) {
			seeds = append(seeds, s)
		}
	}
	return seeds
}

// An ImageLayer is one layer of an image record.
type ImageLayer struct {
	Digest digest.Digest `json:"digest"` // of the layer descriptor
	Block  []byte        `json:"block"`  // the layer root: the block with that digest
	Seed   *Seed         `json:"seed,omitempty"`
}

// A Seed is a blob that has the blocks of a layer (spec/seed.md), but for those that the seeds of layers
// below it in the image have.
type Seed struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes
	Head   int64         `json:"head"` // where its head begins
}

// EncodeImage encodes an image record. It refuses what DecodeImage would refuse.
func EncodeImage(m *Image) ([]byte, error) {
	c := *m
	c.Version = imageVersion
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("encode image record: %w", err)
	}
	b, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode image record: %w", err)
	}
	if len(b) > MaxImageRecord {
		return nil, fmt.Errorf("encode image record: %w (%d bytes)", ErrTooLarge, MaxImageRecord)
	}
	return b, nil
}

// UnmarshalJSON takes the names of the specification exactly as they are written there;
// encoding/json alone would take them in any case.
func (m *Image) UnmarshalJSON(b []byte) error {
	return unmarshalExact(b, map[string]any{"version": &m.Version, "layers": &m.Layers, "peers": &m.Peers, "profile": &m.Profile, "origin": &m.Origin, "seeds": &m.Seeds})
}

// UnmarshalJSON is as strict with names as that of Image.
func (l *ImageLayer) UnmarshalJSON(b []byte) error {
	return unmarshalExact(b, map[string]any{"digest": &l.Digest, "block": &l.Block, "seed": &l.Seed})
}

// UnmarshalJSON is as strict with names as that of Image.
func (s *Seed) UnmarshalJSON(b []byte) error {
	return unmarshalExact(b, map[string]any{"digest": &s.Digest, "size": &s.Size, "head": &s.Head})
}

func (s *Seed) check() error {
	if err := s.Digest.Validate(); err != nil || s.Digest.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%w: digest %.80q of a seed", ErrImage, s.Digest)
	}
	if s.Head < 0 || s.Head >= s.Size {
		return fmt.Errorf("%w: the head of a seed of %d bytes is at %d", ErrImage, s.Size, s.Head)
	}
	return nil
}

// unmarshalExact decodes those members of an object whose names are in fields, and ignores
// the others.
func unmarshalExact(b []byte, fields map[string]any) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	for name, field := range fields {
		raw, ok := object[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, field); err != nil {
			return fmt.Errorf("field %q: %w", name, err)
		}
	}
	return nil
}

// DecodeImage decodes an image record, and verifies the root blocks in it against their
// digests. Fields it does not know are ignored.
func DecodeImage(b []byte) (*Image, error) {
	if len(b) > MaxImageRecord {
		return nil, fmt.Errorf("decode image record: %w (%d bytes)", ErrTooLarge, MaxImageRecord)
	}
	m := new(Image)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("decode image record: %w: %w", ErrImage, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("decode image record: %w", err)
	}
	return m, nil
}

func (m *Image) check() error {
	if m.Version != imageVersion {
		return fmt.Errorf("%w: version %d, want %d", ErrImage, m.Version, imageVersion)
	}
	if len(m.Layers) > MaxImageLayers || len(m.Peers) > MaxImagePeers || len(m.Seeds) > MaxImageSeeds {
		return fmt.Errorf("%w (%d layers, %d peers, %d seeds of other images)", ErrTooLarge, MaxImageLayers, MaxImagePeers, MaxImageSeeds)
	}
	for i := range m.Seeds {
		if err := m.Seeds[i].check(); err != nil {
			return fmt.Errorf("seed %d of other images: %w", i, err)
		}
	}
	for i, l := range m.Layers {
		if len(l.Block) > MaxRootBlock {
			return fmt.Errorf("layer %d: %w (root block of %d bytes)", i, ErrTooLarge, MaxRootBlock)
		}
		if err := l.Digest.Validate(); err != nil || l.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("layer %d: %w: digest %.80q", i, ErrImage, l.Digest)
		}
		if digest.FromBytes(l.Block) != l.Digest {
			return fmt.Errorf("layer %d: %w: its block does not have digest %s", i, ErrImage, l.Digest)
		}
		if l.Seed != nil {
			if err := l.Seed.check(); err != nil {
				return fmt.Errorf("layer %d: %w", i, err)
			}
		}
	}
	for _, p := range append([]string{m.Origin}, m.Peers...) {
		if len(p) > MaxImagePeer {
			return fmt.Errorf("%w (address of a peer of %d bytes)", ErrTooLarge, MaxImagePeer)
		}
	}
	if m.Profile != "" {
		if _, err := cid.Decode(m.Profile); err != nil {
			return fmt.Errorf("%w: profile %.80q: %w", ErrImage, m.Profile, err)
		}
	}
	return nil
}
