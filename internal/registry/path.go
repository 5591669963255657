package registry

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/imagedir"
)

// repository is the name that all images are below, and that of manifests which are asked for by
// nothing but their digest.
const repository = "ipfs"

// What can be asked for.
type kind int

const (
	kindBase kind = iota
	kindManifest
	kindBlob
	kindTags
	kindReferrers
)

// A target is what a path asks for.
type target struct {
	kind   kind
	name   string        // repository
	root   cid.Cid       // of the image; undefined in the repository of all
	tag    string        // of a manifest; empty if it is asked for by digest
	digest digest.Digest // of a manifest, blob or subject
}

// validTag is what the distribution specification says of tags.
var validTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// parsePath parses the path of a request: /v2/, or /v2/NAME/… where NAME is ipfs or ipfs/CID.
func parsePath(path string) (target, error) {
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok {
		return target{}, fail(http.StatusNotFound, codeUnsupported, "this is a registry: paths begin with /v2/")
	}
	if rest == "" || rest == "/" {
		return target{kind: kindBase}, nil
	}
	words := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	if n := len(words); !strings.HasPrefix(rest, "/") || words[0] != repository || n < 3 || n > 4 {
		return target{}, fail(http.StatusNotFound, codeNameUnknown, "no such repository: images are ipfs/CID, or ipfs@sha256:…")
	}
	t := target{name: repository}
	if len(words) == 4 {
		root, err := imagedir.ParseRoot(words[1])
		if err != nil {
			return target{}, fail(http.StatusNotFound, codeNameUnknown, "no such repository: %v", err)
		}
		t.root, t.name = root, repository+"/"+words[1]
	}
	return t, t.parse(words[len(words)-2], words[len(words)-1])
}

// parse parses the last two words of a path.
func (t *target) parse(what, reference string) error {
	switch what {
	case "manifests":
		t.kind = kindManifest
		if !strings.Contains(reference, ":") {
			t.tag = reference
			if !validTag.MatchString(reference) {
				return fail(http.StatusNotFound, codeManifestUnknown, "%.128q is no tag", reference)
			}
			return nil
		}
	case "blobs":
		t.kind = kindBlob
	case "referrers":
		t.kind = kindReferrers
	case "tags":
		t.kind = kindTags
		if reference != "list" {
			return fail(http.StatusNotFound, codeUnsupported, "of tags, there is tags/list")
		}
		return nil
	default:
		return fail(http.StatusNotFound, codeUnsupported, "of a repository there are manifests, blobs, tags and referrers")
	}
	t.digest = digest.Digest(reference)
	if err := t.digest.Validate(); err != nil {
		return fail(http.StatusBadRequest, codeDigestInvalid, "%.200q is no digest: %v", reference, err)
	}
	return nil
}
