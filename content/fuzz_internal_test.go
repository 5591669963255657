package content

import (
	"testing"

	"github.com/ipfs/go-cid"
)

// FuzzBindings has whatever is ingested looked at as a manifest.
func FuzzBindings(f *testing.F) {
	seeds := []string{
		`{"layers":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3000000,"annotations":{"com.github.hinshun.ipcs.blob":"bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"}}]}`,
		`{"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3,"annotations":{"com.github.hinshun.ipcs.blob":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}}}`,
		`{"layers":[{"annotations":{"com.github.hinshun.ipcs.blob":""}}]}`, `{"layers":{}}`, `[]`, ``, `{`,
	}
	if len(parseBindings([]byte(seeds[0]))) != 1 || len(parseBindings([]byte(seeds[1]))) != 1 {
		f.Fatal("the seeds bind nothing")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list := parseBindings(data)
		if len(list) > maxBindings {
			t.Errorf("%d bindings", len(list))
		}
		for _, b := range list {
			root, err := cid.Decode(b.Root)
			if err != nil || !isBlobRoot(root, b.Size) || b.Digest.Validate() != nil || b.Size > MaxBound {
				t.Errorf("it binds %+v", b)
			}
		}
	})
}
