package layer

import "github.com/opencontainers/go-digest"

// An Image is the image record: a hint that lists the layers of a whole image.
type Image struct {
	Version int          `json:"version"`
	Layers  []ImageLayer `json:"layers"` // bottom first
	Peers   []string     `json:"peers,omitempty"`
	Profile string       `json:"profile,omitempty"` // CID
}

// An ImageLayer is one layer of an image record.
type ImageLayer struct {
	Digest digest.Digest `json:"digest"`
	Block  []byte        `json:"block"` // the root block
}

// EncodeImage encodes an image record.
func EncodeImage(m *Image) ([]byte, error) { return nil, errSkeleton }

// DecodeImage decodes an image record, and verifies the root blocks in it.
func DecodeImage(b []byte) (*Image, error) { return nil, errSkeleton }
