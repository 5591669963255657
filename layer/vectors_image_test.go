package layer

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
)

// rootVector is the block of a case of root.json.
func rootVector(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(vectorDir + "/root.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range layertest.DecodeCases[vector](t, b) {
		if v.Name == name {
			return unhex(t, v.Hex)
		}
	}
	t.Fatalf("root.json has no case %q", name)
	return nil
}

// recordVectors are the cases of image.json with records.
func recordVectors(t *testing.T) []imageVector {
	t.Helper()
	block := rootVector(t, "without shadowed")
	sum, data := digest.FromBytes(block).String(), base64.StdEncoding.EncodeToString(block)
	layers := func(members string) string { return `{"version":1,"layers":[{` + members + `}]}` }
	good := fmt.Sprintf(`"digest":%q,"block":%q`, sum, data)
	const peer = "/ip4/192.0.2.1/tcp/1"
	peers := func(n int) string {
		return `{"version":1,"peers":[` + strings.TrimSuffix(strings.Repeat(`"`+peer+`",`, n), ",") + `]}`
	}
	hello, err := ipfs.NewBlock(cid.Raw, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	oneSeed := `{"digest":"` + digest.FromString("").String() + `","size":2,"head":1}`
	seedsOf := func(n int) string {
		return `{"version":1,"seeds":[` + strings.TrimSuffix(strings.Repeat(oneSeed+",", n), ",") + `]}`
	}
	profile := `"` + hello.Cid.String() + `"`
	return []imageVector{
		{"a version alone", `{"version":1}`, ""},
		{"everything", `{"version":1,"layers":[{` + good + `},{` + good + `}],"peers":["` + peer + `"],"profile":` + profile + `}`, ""},
		{"white space and another order", "{\n  \"peers\": [ \"" + peer + "\" ],\n  \"version\": 1\n}\n", ""},
		{"unknown fields", `{"later":{"x":[1]},"version":1,"layers":[{"later":1,` + good + `}]}`, ""},
		{"fields that are null", `{"version":1,"layers":null,"peers":null,"profile":null}`, ""},
		{"names in another case are unknown", `{"version":1,"Layers":1,"PEERS":["` + peer + `"],"Profile":"x"}`, ""},
		{"a version twice", `{"version":2,"version":1}`, ""},
		{"a peer that is no multiaddr", `{"version":1,"peers":["peer","` + peer + `"]}`, ""},
		{"a profile of version 0", `{"version":1,"profile":"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPAFG"}`, ""},
		{"as many peers as there may be", peers(MaxImagePeers), ""},
		{"seeds", `{"version":1,"layers":[{` + good + `,"seed":` + oneSeed + `}],"origin":"registry.example.com/app","seeds":[` + oneSeed + `]}`, ""},
		{"as many seeds of other images as there may be", seedsOf(MaxImageSeeds), ""},
		{"a seed without a digest", `{"version":1,"seeds":[{"size":2,"head":1}]}`, "image"},
		{"a seed with another hash", `{"version":1,"seeds":[{"digest":"` + digest.SHA512.FromString("").String() + `","size":2,"head":1}]}`, "image"},
		{"a head behind the end of a seed", `{"version":1,"seeds":[` + strings.Replace(oneSeed, `"head":1`, `"head":2`, 1) + `]}`, "image"},
		{"a head before a seed", `{"version":1,"seeds":[` + strings.Replace(oneSeed, `"head":1`, `"head":-1`, 1) + `]}`, "image"},
		{"too many seeds of other images", seedsOf(MaxImageSeeds + 1), "limit"},
		{"an origin that is too long", `{"version":1,"origin":"` + strings.Repeat("a", MaxImagePeer+1) + `"}`, "limit"},
		{"no version", `{}`, "image"},
		{"another version", `{"version":2}`, "image"},
		{"a version in another case", `{"Version":1}`, "image"},
		{"a version that is text", `{"version":"1"}`, "image"},
		{"a version with a fraction", `{"version":1.0}`, "image"},
		{"no JSON", `x`, "image"},
		{"a list", `[]`, "image"},
		{"null", `null`, "image"},
		{"bytes after", `{"version":1}x`, "image"},
		{"layers that are no list", `{"version":1,"layers":{}}`, "image"},
		{"a layer without a digest", layers(fmt.Sprintf(`"block":%q`, data)), "image"},
		{"a layer without a block", layers(fmt.Sprintf(`"digest":%q`, sum)), "image"},
		{"a layer that is null", `{"version":1,"layers":[null]}`, "image"},
		{"a digest in another case", layers(strings.Replace(good, `"digest"`, `"Digest"`, 1)), "image"},
		{"the block of another layer", layers(strings.Replace(good, sum, digest.FromString("").String(), 1)), "image"},
		{"another hash", layers(strings.Replace(good, sum, digest.SHA512.FromBytes(block).String(), 1)), "image"},
		{"a block without padding", layers(strings.Replace(good, data, strings.TrimRight(data, "="), 1)), "image"},
		{"peers that are no list", `{"version":1,"peers":"` + peer + `"}`, "image"},
		{"a peer that is no text", `{"version":1,"peers":[1]}`, "image"},
		{"a profile that is no CID", `{"version":1,"profile":"profile"}`, "image"},
		{"too many peers", peers(MaxImagePeers + 1), "limit"},
		{"a peer that is too long", `{"version":1,"peers":["/dns/` + strings.Repeat("a", MaxImagePeer) + `"]}`, "limit"},
	}
}
