package convert

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

// originalVectors are the cases of image.json with originals: those that count, and for each
// rule of spec/image.md, "The original", those that break it.
func originalVectors(t *testing.T) []originalVector {
	t.Helper()
	return append(goodOriginals(t), badOriginals(t)...)
}

func goodOriginals(t *testing.T) []originalVector {
	t.Helper()
	var all []originalVector
	add := func(name string, c *conversion) {
		original := c.seal(t)
		all = append(all, c.vector(t, name, "", original))
	}
	add("an original", newConversion(false))
	add("an original of Docker", newConversion(true))
	kept := newConversion(false)
	kept.keep()
	add("an original with kept diffIDs", kept)
	odd := newConversion(false)
	odd.config = strings.Replace(odd.config, `"os"`, "\n \"x\":1.50e+2, \"x\":\"\\u0041<\\/\", \"\\u00e9\\/\\u0041\\u2028\\u0007\\n<\": [ ], \"os\"", 1)
	add("an original with an odd config", odd)
	return all
}

func badOriginals(t *testing.T) []originalVector {
	t.Helper()
	var all []originalVector
	// before changes what is converted, after what became of it; either may be nil.
	add := func(name string, before, after func(c *conversion)) {
		c := newConversion(false)
		if before != nil {
			before(c)
		}
		original := c.seal(t)
		if after != nil {
			after(c)
		}
		all = append(all, c.vector(t, name, "original", original))
	}
	annotate := func(key, value string) func(*conversion) {
		return func(c *conversion) { c.manifest.Annotations[key] = value }
	}
	without := func(key string) func(*conversion) {
		return func(c *conversion) { delete(c.manifest.Annotations, key) }
	}
	text := func(data string) string {
		packed, err := packText([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	const manifest, config = mediatype.AnnotationManifestData, mediatype.AnnotationConfigData
	add("no original", nil, func(c *conversion) { c.manifest.Annotations = nil })
	add("no digest of the manifest", nil, without(mediatype.AnnotationManifest))
	add("no manifest", nil, without(manifest))
	add("no config", nil, without(config))
	add("the digest of another manifest", nil, annotate(mediatype.AnnotationManifest, digest.FromString("x").String()))
	add("the config of another original", nil, annotate(config, text(configOf("B=2", tarDigest(0), tarDigest(1)))))
	add("a manifest that is not base64", nil, annotate(manifest, "???"))
	add("a manifest in lines of base64", nil, func(c *conversion) {
		data := c.manifest.Annotations
		data[manifest] = data[manifest][:76] + "\n" + data[manifest][76:]
	})
	add("a manifest that is not zstd", nil, annotate(manifest, base64.StdEncoding.EncodeToString([]byte("nonsense"))))
	add("a manifest that is not JSON", nil, func(c *conversion) { c.travel(t, []byte("x")) })
	add("a manifest of more than 4 MiB", nil, func(c *conversion) { c.travel(t, append(c.seal(t), bytes.Repeat([]byte(" "), maxManifest)...)) })
	add("a config that was changed", nil, func(c *conversion) { c.made = strings.Replace(c.made, "A=1", "B=2", 1) })
	add("a config with other white space", nil, func(c *conversion) { c.made += "\n" })
	add("diffIDs of other layers", nil, func(c *conversion) { c.made = rewritten(t, c.config, rootDigest(1), rootDigest(0)) })
	add("one layer less", nil, func(c *conversion) {
		c.manifest.Layers = c.manifest.Layers[:1]
		c.made = rewritten(t, c.config, rootDigest(0))
	})
	add("an ordinary layer", func(c *conversion) { c.manifest.Layers[1] = c.original.Layers[1] }, nil)
	add("an original of ipcs layers", func(c *conversion) {
		c.original.Layers[1] = ocispec.Descriptor{MediaType: mediatype.Layer, Digest: rootDigest(9), Size: 200}
	}, nil)
	add("kept diffIDs and a config that was changed", (*conversion).keep, func(c *conversion) { c.made = strings.Replace(c.made, "A=1", "B=2", 1) })
	return all
}
