package convert

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// ErrReference says that a SOURCE or TARGET is malformed.
var ErrReference = errors.New("malformed reference")

// Access says how sources and targets are reached.
type Access struct {
	PlainHTTP         bool   // speak HTTP to registries also where they are not on this host
	ContainerdAddress string // containerd's socket
	Namespace         string // of containerd
}

const (
	prefixLayout     = "oci:"
	prefixContainerd = "containerd:"
	prefixIPFS       = "ipfs:"
	defaultTag       = "latest"
)

// OpenSource opens oci:DIR[:TAG], containerd:REF, ipfs:CID or a registry reference for reading.
func (a Access) OpenSource(ctx context.Context, ref string) (Source, error) {
	switch {
	case strings.HasPrefix(ref, prefixLayout):
		return parseLayout(ref)
	case strings.HasPrefix(ref, prefixContainerd):
		return a.openContainerd(ref)
	case strings.HasPrefix(ref, prefixIPFS):
		return parseIPFSSource(ref)
	default:
		return a.openRegistry(ref)
	}
}

// OpenTarget opens oci:DIR[:TAG], containerd:REF, ipfs: or a registry reference for writing.
func (a Access) OpenTarget(ctx context.Context, ref string) (Target, error) {
	switch {
	case strings.HasPrefix(ref, prefixLayout):
		l, err := parseLayout(ref)
		if err == nil && l.digest != "" {
			err = errDigestTarget(ref)
		}
		return l, err
	case strings.HasPrefix(ref, prefixContainerd):
		return a.openContainerd(ref)
	case strings.HasPrefix(ref, prefixIPFS):
		return parseIPFSTarget(ref)
	default:
		r, err := a.openRegistry(ref)
		if err == nil && strings.Contains(r.reference, ":") {
			err = errDigestTarget(ref)
		}
		return r, err
	}
}

func errDigestTarget(ref string) error {
	return fmt.Errorf("%w: %s: a target needs a tag; its digest is not known before it is made", ErrReference, ref)
}

// Same reports whether two references mean the same place.
func Same(source, target string) bool {
	return normalize(source) == normalize(target)
}

func normalize(ref string) string {
	switch {
	case strings.HasPrefix(ref, prefixContainerd), strings.HasPrefix(ref, prefixIPFS):
		return ref
	case strings.HasPrefix(ref, prefixLayout):
		if l, err := parseLayout(ref); err == nil {
			return l.String()
		}
	default:
		if named, err := reference.ParseDockerRef(ref); err == nil {
			return named.String()
		}
	}
	return ref
}

// parseLayout parses oci:DIR[:TAG] and oci:DIR@DIGEST.
func parseLayout(ref string) (*layout, error) {
	dir := strings.TrimPrefix(ref, prefixLayout)
	l := &layout{}
	if d, dgst, ok := cutLast(dir, "@"); ok && !strings.Contains(dgst, "/") {
		l.dir, l.digest = d, digest.Digest(dgst)
		if err := l.digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrReference, ref, err)
		}
	} else if d, tag, ok := cutLast(dir, ":"); ok && !strings.Contains(tag, "/") {
		l.dir, l.tag = d, tag
		if tag == "" || strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%w: %s: the tag is empty or has white space in it", ErrReference, ref)
		}
	} else {
		l.dir = dir
	}
	if l.dir == "" {
		return nil, fmt.Errorf("%w: %s: want oci:DIR or oci:DIR:TAG", ErrReference, ref)
	}
	return l, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
