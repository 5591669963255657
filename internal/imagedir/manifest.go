package imagedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/jsonlist"
)

// A Manifest is a manifest or an index of manifests, of OCI or Docker.
type Manifest struct {
	MediaType string
	Data      []byte

	refs  []ref // config and layers, or manifests
	index bool
}

// A ref is as much of a descriptor as is needed.
type ref struct {
	Digest digest.Digest `json:"digest"`
}

// The media types that a manifest and an index may have, the default first.
var (
	manifestTypes = []string{ocispec.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest}
	indexTypes    = []string{ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList}
)

// ParseManifest reads a manifest or index. It refuses what is one to one reader and the other to
// another, which can hide one image behind another. The error is ErrImage, wrapped.
func ParseManifest(data []byte) (*Manifest, error) {
	m, err := parseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrImage, err)
	}
	return m, nil
}

func parseManifest(data []byte) (*Manifest, error) {
	fields, err := object(data, "schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers")
	if err != nil {
		return nil, err
	}
	var version int
	m := &Manifest{Data: data}
	if err := decode(fields, "schemaVersion", &version); err != nil {
		return nil, err
	}
	if err := decode(fields, "mediaType", &m.MediaType); err != nil {
		return nil, err
	}
	_, config := fields["config"]
	_, layers := fields["layers"]
	_, m.index = fields["manifests"]
	if version != 2 || m.index == (config || layers) || !m.index && !config {
		return nil, fmt.Errorf("neither a manifest nor an index of version 2")
	}
	types, list := manifestTypes, "layers"
	if m.index {
		types, list = indexTypes, "manifests"
	}
	if m.MediaType == "" {
		m.MediaType = types[0]
	}
	if !slices.Contains(types, m.MediaType) {
		return nil, fmt.Errorf("its media type is %.100q, want one of %q", m.MediaType, types)
	}
	if m.refs, err = jsonlist.Decode[ref](fields[list], maxInList); err != nil {
		return nil, fmt.Errorf("its %s: %w", list, err)
	}
	if config {
		var c ref
		if err := decode(fields, "config", &c); err != nil {
			return nil, err
		}
		m.refs = append(m.refs, c)
	}
	// What else there is nobody can have here, and it may be of any length.
	m.refs = slices.DeleteFunc(m.refs, func(r ref) bool {
		return r.Digest.Validate() != nil || r.Digest.Algorithm() != digest.SHA256
	})
	return m, nil
}

// object decodes the members of an object, of which there are few. It refuses names that come
// twice, or that differ from those given in case only: other decoders may take the other one.
func object(data []byte, names ...string) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, fmt.Errorf("no JSON object")
	}
	fields := make(map[string]json.RawMessage)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string) // what else stands there is an error of the next token
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := fields[key]; twice || len(fields) == maxFields {
			return nil, fmt.Errorf("a field %.100q comes twice, or there are more than %d", key, maxFields)
		}
		fields[key] = value
		for _, name := range names {
			if key != name && strings.EqualFold(key, name) {
				return nil, fmt.Errorf("it has a field %.100q beside %q", key, name)
			}
		}
	}
	if end, err := dec.Token(); err != nil || end != json.Delim('}') {
		return nil, fmt.Errorf("the JSON object does not end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more follows the JSON object")
	}
	return fields, nil
}

// decode decodes a member, if it is there.
func decode(fields map[string]json.RawMessage, name string, v any) error {
	text, ok := fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("its %s: %w", name, err)
	}
	return nil
}

// Names are the digests of the blobs, or of the manifests, that it names, as far as they are sha256.
func (m *Manifest) Names() []digest.Digest {
	names := make([]digest.Digest, 0, len(m.refs))
	for _, r := range m.refs {
		names = append(names, r.Digest)
	}
	return names
}

// IsIndex says whether it names manifests.
func (m *Manifest) IsIndex() bool { return m.index }

// names says whether the manifest names a blob or a manifest.
func (m *Manifest) names(d digest.Digest) bool {
	return slices.ContainsFunc(m.refs, func(r ref) bool { return r.Digest == d })
}

// manifests are those that an index names.
func (m *Manifest) manifests() []ref {
	if !m.index {
		return nil
	}
	return m.refs
}
