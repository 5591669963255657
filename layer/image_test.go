package layer

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
)

func TestImage(t *testing.T) {
	l, _ := convert(t, layertest.Tar(t, text("a", "1")))
	d := digest.FromBytes(l.Root.Data)
	want := &Image{Version: 1, Layers: []ImageLayer{{d, l.Root.Data, &Seed{Digest: d, Size: 2, Head: 1}}}, Peers: []string{"/ip4/10.0.0.1/tcp/4001/p2p/x"}, Profile: l.Rootfs.String(), Origin: "registry.example.com/app"}
	b, err := EncodeImage(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeImage(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := DecodeImage(bytes.Replace(b, []byte(`{"version"`), []byte(`{"later":{"x":[1]},"version"`), 1)); err != nil {
		t.Errorf("unknown field: %v", err)
	}
	many := make([]string, MaxImagePeers+1)
	for name, tc := range map[string]struct {
		image Image
		want  error
	}{
		"other block":         {Image{Layers: []ImageLayer{{d, []byte("x"), nil}}}, ErrImage},
		"no digest":           {Image{Layers: []ImageLayer{{"", nil, nil}}}, ErrImage},
		"sha512":              {Image{Layers: []ImageLayer{{digest.SHA512.FromBytes(nil), nil, nil}}}, ErrImage},
		"large block":         {Image{Layers: []ImageLayer{{d, make([]byte, MaxRootBlock+1), nil}}}, ErrTooLarge},
		"many layers":         {Image{Layers: make([]ImageLayer, MaxImageLayers+1)}, ErrTooLarge},
		"many peers":          {Image{Peers: many}, ErrTooLarge},
		"long peer":           {Image{Peers: []string{strings.Repeat("p", MaxImagePeer+1)}}, ErrTooLarge},
		"seed of nothing":     {Image{Layers: []ImageLayer{{d, l.Root.Data, &Seed{Digest: d}}}}, ErrImage},
		"head outside":        {Image{Layers: []ImageLayer{{d, l.Root.Data, &Seed{Digest: d, Size: 2, Head: -1}}}}, ErrImage},
		"seed without digest": {Image{Layers: []ImageLayer{{d, l.Root.Data, &Seed{Size: 2}}}}, ErrImage},
		"long origin":         {Image{Origin: strings.Repeat("p", MaxImagePeer+1)}, ErrTooLarge},
		"no profile":          {Image{Profile: "profile"}, ErrImage},
		"nothing much":        {Image{}, nil},
	} {
		if _, err := EncodeImage(&tc.image); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for name, b := range map[string]string{"version": `{"version":2}`, "none": `{}`, "not json": `x`, "list": `[]`} {
		if _, err := DecodeImage([]byte(b)); !errors.Is(err, ErrImage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeImage(make([]byte, MaxImageRecord+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

// TestRootRefused names the error of each block that is no layer root.
func TestRootRefused(t *testing.T) {
	l, m := convert(t, layertest.Tar(t, text("a", "1")))
	links, _, err := parseNode(string(l.Root.Data))
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int, change func(*link)) []link {
		out := append([]link(nil), links...)
		change(&out[i])
		return out
	}
	for name, tc := range map[string]struct {
		links []link
		want  error
	}{
		"no links":         {nil, ErrRoot},
		"no tar-split":     {links[:2], ErrRoot},
		"an extra link":    {append(append([]link(nil), links...), link{"x", l.Rootfs, 1}), ErrRoot},
		"unsorted":         {[]link{links[1], links[0], links[2]}, ErrRoot},
		"twice":            {[]link{links[0], links[1], links[1], links[2]}, ErrRoot},
		"raw rootfs":       {at(1, func(k *link) { k.cid = l.IndexCid }), ErrRoot},
		"other codec":      {at(0, func(k *link) { k.cid = cid.NewCidV1(cid.DagCBOR, k.cid.Hash()) }), ErrRoot},
		"version 0":        {at(1, func(k *link) { k.cid = cid.NewCidV0(k.cid.Hash()) }), ErrRoot},
		"huge":             {at(2, func(k *link) { k.name = strings.Repeat("t", MaxRootBlock) }), ErrTooLarge},
		"index is missing": {at(0, func(k *link) { k.cid = ipfs.RawCid(someDigest) }), ipfs.ErrNotFound},
		"index is rootfs":  {at(0, func(k *link) { k.cid = l.Rootfs }), ipfs.ErrFile},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := ipfs.NewBlock(cid.DagProtobuf, directoryNode(tc.links))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := OpenBlock(context.Background(), m, b); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestOpenRefused(t *testing.T) {
	ctx := context.Background()
	l, m := convert(t, layertest.Tar(t, text("a", "1")))
	if _, err := OpenBlock(ctx, m, ipfs.Block{Cid: l.Root.Cid, Data: []byte("x")}); !errors.Is(err, ipfs.ErrHash) {
		t.Error(err)
	}
	if _, err := Open(ctx, m, l.IndexCid); !errors.Is(err, mediatype.ErrNotLayerRoot) {
		t.Error(err)
	}
	if _, err := Open(ctx, newMemory(), l.Root.Cid); !errors.Is(err, ipfs.ErrNotFound) {
		t.Error(err)
	}
	other, _ := convert(t, layertest.Tar(t, text("a", "2")))
	l.Rootfs = other.Rootfs
	if err := l.CheckRootfs(ctx); !errors.Is(err, ErrViews) {
		t.Error(err)
	}
	d, err := mediatype.LayerDigest(l.Root.Cid)
	if err != nil || d != digest.FromBytes(l.Root.Data) {
		t.Error("the layer digest is not the sha256 of the root block", d, err)
	}
}
