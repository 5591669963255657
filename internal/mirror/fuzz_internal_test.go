package mirror

import (
	"strings"
	"testing"
)

// requests are paths and namespaces that are asked for: the first ones are in order.
var requests = []struct{ path, namespace string }{
	{"/v2/library/python/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", "docker.io"},
	{"/v2/app/manifests/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", ""},
	{"/v2/app/manifests/latest", "registry.example:5000"}, {"/v2/", ""}, {"", ""}, {"/v2/a/blobs/sha256:../../../etc/passwd", "x"},
}

// TestRequestSeeds says that the fuzz target begins with requests, and with what is none.
func TestRequestSeeds(t *testing.T) {
	for i, r := range requests {
		if _, err := parse(r.path, r.namespace); (err == nil) != (i < 2) {
			t.Errorf("%q: %v", r.path, err)
		}
	}
}

// FuzzRequest parses requests: what is taken has a digest, and a repository below the namespace.
func FuzzRequest(f *testing.F) {
	for _, r := range requests {
		f.Add(r.path, r.namespace)
	}
	f.Fuzz(func(t *testing.T, path, namespace string) {
		r, err := parse(path, namespace)
		if err != nil {
			return
		}
		if r.digest.Validate() != nil || r.manifest != r.source.manifest || !strings.HasSuffix(path, r.digest.String()) {
			t.Errorf("%q: %+v", path, r)
		}
		if (namespace == "") != (r.source.repository == "") || namespace != "" && !strings.HasPrefix(r.source.repository, namespace+"/") {
			t.Errorf("%q, %q: repository %q", path, namespace, r.source.repository)
		}
	})
}
