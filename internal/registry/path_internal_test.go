package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/imagedir"
)

const (
	directory = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354" // the empty one
	manifest  = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku" // of no bytes
	sum       = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// TestPaths parses what is asked for, and what is not there.
func TestPaths(t *testing.T) {
	root, err := imagedir.ParseRoot(directory)
	if err != nil {
		t.Fatal(err)
	}
	name := "ipfs/" + directory
	for path, want := range map[string]target{
		"/v2/":                                 {},
		"/v2":                                  {},
		"/v2/" + name + "/manifests/latest":    {kind: kindManifest, name: name, root: root, tag: "latest"},
		"/v2/" + name + "/manifests/" + sum:    {kind: kindManifest, name: name, root: root, digest: sum},
		"/v2/" + name + "/blobs/" + sum:        {kind: kindBlob, name: name, root: root, digest: sum},
		"/v2/" + name + "/tags/list":           {kind: kindTags, name: name, root: root},
		"/v2/" + name + "/referrers/" + sum:    {kind: kindReferrers, name: name, root: root, digest: sum},
		"/v2/ipfs/manifests/" + sum:            {kind: kindManifest, name: "ipfs", digest: sum},
		"/v2/ipfs/blobs/" + sum:                {kind: kindBlob, name: "ipfs", digest: sum},
		"/v2/ipfs/manifests/latest":            {kind: kindManifest, name: "ipfs", tag: "latest"},
		"/v2/ipfs/tags/list":                   {kind: kindTags, name: "ipfs"},
		"/v2/ipfs/blobs/" + sha512("anything"): {kind: kindBlob, name: "ipfs", digest: digest.Digest(sha512("anything"))},
	} {
		if got, err := parsePath(path); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", path, got, err, want)
		}
	}
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/":                            {http.StatusNotFound, codeUnsupported},
		"/v1/":                         {http.StatusNotFound, codeUnsupported},
		"/v20/ipfs/tags/list":          {http.StatusNotFound, codeNameUnknown},
		"/v2//ipfs/tags/list":          {http.StatusNotFound, codeNameUnknown},
		"/v2/_catalog":                 {http.StatusNotFound, codeNameUnknown},
		"/v2/ipfs":                     {http.StatusNotFound, codeNameUnknown},
		"/v2/library/tags/list":        {http.StatusNotFound, codeNameUnknown},
		"/v2/ipfs/x/tags/list":         {http.StatusNotFound, codeNameUnknown},
		"/v2/ipfs//tags/list":          {http.StatusNotFound, codeNameUnknown},
		"/v2/ipfs/../x/tags/list":      {http.StatusNotFound, codeNameUnknown},
		"/v2/" + name + "/x/tags/list": {http.StatusNotFound, codeNameUnknown},
		"/v2/" + strings.ToUpper(name) + "/tags/list": {http.StatusNotFound, codeNameUnknown},
		"/v2/" + name + "/tags/latest":                {http.StatusNotFound, codeUnsupported},
		"/v2/" + name + "/blobs/uploads":              {http.StatusBadRequest, codeDigestInvalid},
		"/v2/" + name + "/blobs/sha256:12":            {http.StatusBadRequest, codeDigestInvalid},
		"/v2/" + name + "/manifests/sha256:12":        {http.StatusBadRequest, codeDigestInvalid},
		"/v2/" + name + "/manifests/":                 {http.StatusNotFound, codeManifestUnknown},
		"/v2/" + name + "/manifests/a b":              {http.StatusNotFound, codeManifestUnknown},
		"/v2/" + name + "/referrers/latest":           {http.StatusBadRequest, codeDigestInvalid},
		"/v2/" + name + "/images/latest":              {http.StatusNotFound, codeUnsupported},
	} {
		got, err := parsePath(path)
		var f *failure
		if !errors.As(err, &f) || f.status != want.status || f.code != want.code {
			t.Errorf("%s: %+v, %v; want %v", path, got, err, want)
		}
	}
}

func sha512(text string) string { return digest.SHA512.FromString(text).String() }

// FuzzPath: a path is refused with a status that says so, or is the only spelling of what it
// asks for.
func FuzzPath(f *testing.F) {
	for _, root := range []string{directory, manifest} {
		f.Add("/v2/ipfs/" + root + "/manifests/latest")
		f.Add("/v2/ipfs/" + root + "/blobs/" + sum)
	}
	f.Add("/v2/ipfs/manifests/" + sum)
	f.Add("/v2/")
	f.Add("/v2/ipfs/" + directory + "/tags/list")
	f.Add("/v2/ipfs/" + directory + "/referrers/" + sum)
	words := map[kind]string{kindManifest: "manifests", kindBlob: "blobs", kindReferrers: "referrers", kindTags: "tags"}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := parsePath(path)
		if err != nil {
			var f *failure
			if !errors.As(err, &f) || f.status < 400 || f.status >= 500 || f.code == "" || f.message == "" {
				t.Fatalf("%q is refused with %v", path, err)
			}
			return
		}
		if got.kind == kindBase {
			if path != "/v2" && path != "/v2/" {
				t.Fatalf("%q is %+v", path, got)
			}
			return
		}
		last := got.tag + got.digest.String()
		if got.kind == kindTags {
			last = "list"
		}
		name := "ipfs"
		if got.root.Defined() {
			name += "/" + got.root.String()
		}
		if again := "/v2/" + name + "/" + words[got.kind] + "/" + last; again != path || got.name != name {
			t.Fatalf("%q is %+v, which is %q", path, got, again)
		}
	})
}
