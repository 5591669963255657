//go:build linux

package unpack_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hinshun/ipcs/internal/lab/tree"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
)

// TestHostileTree unpacks over a tree that lower layers have prepared: symbolic links lead
// out of the root wherever the layer has a path. Nothing outside changes.
func TestHostileTree(t *testing.T) {
	owned := func(f file) file {
		f.UID, f.GID, f.Mode, f.Sec, f.Xattrs = 66, 66, 0o4777, 6, map[string]string{"user.evil": "1"}
		return f
	}
	for name, files := range map[string][]file{
		"implied directory":  {owned(text("L/evil", "1")), owned(text("L/d/evil", "1"))},
		"explicit directory": {owned(dir("L")), owned(text("L/evil", "1")), owned(dir("L/d"))},
		"late directory":     {owned(text("L/evil", "1")), owned(dir("L"))},
		"file":               {owned(text("L", "evil"))},
		"large file":         {owned(text("L", string(make([]byte, ipfs.LeafSize+1))))},
		"whiteout":           {text("L/.wh.keep", ""), text(".wh.L2", "")},
		"opaque":             {dir("L"), text("L/.wh..wh..opq", "")},
		"implied opaque":     {text("L/.wh..wh..opq", "")},
		"hard link":          {text("a", ""), owned(hard("L", "a")), owned(hard("L2/evil", "a"))},
		"symbolic link":      {owned(sym("L", "x")), owned(sym("L2/evil", "x"))},
		"device":             {owned(file{Name: "L", Type: tar.TypeChar, Major: 1, Minor: 3}), owned(file{Name: "L2/evil", Type: tar.TypeFifo})},
	} {
		for to, target := range map[string]string{
			"absolute": "OUTSIDE", "relative": "../outside", "far up": "../../../../../../../../../../OUTSIDE", "file": "OUTSIDE/keep", "loop": "L",
			"parent": "..", "root": "/", "chain": "chain",
		} {
			t.Run(name+"/"+to, func(t *testing.T) {
				l := newLab(t)
				outside, root := l.folder("outside"), l.folder("root")
				l.must(os.WriteFile(filepath.Join(outside, "keep"), []byte("kept"), 0o600))
				if i := len(target) - len("OUTSIDE"); i >= 0 && target[i:] == "OUTSIDE" {
					target = target[:i] + outside
				} else if target == "OUTSIDE/keep" {
					target = filepath.Join(outside, "keep")
				}
				l.must(os.Symlink("/", filepath.Join(root, "chain")))
				for _, link := range []string{"L", "L2"} {
					l.must(os.Symlink(target, filepath.Join(root, link)))
				}
				want, err := tree.Read(outside)
				l.must(err)
				l.apply(l.convert(layertest.Tar(t, files...)), bind(root))
				got, err := tree.Read(outside)
				l.must(err)
				if diff := tree.Diff(want, got, nil); len(diff) > 0 {
					t.Errorf("outside of the root: %q", diff)
				}
			})
		}
	}
}

// TestTwoPaths unpacks a layer that has two paths to one place, since a directory of one of
// them is a symbolic link below it. What another path makes there must not be taken for what
// the first has made: a link would have the mode of something outside changed.
func TestTwoPaths(t *testing.T) {
	const many = 300 // enough for several goroutines to meet
	setuid := func(f file) file { f.Mode = 0o4777; return f }
	for name, c := range map[string]struct {
		first, second func(name, outside string) file
		names         int
		refused       bool
	}{
		"directory and link":  {func(n, _ string) file { return setuid(dir(n)) }, sym, many, true},
		"file and link":       {func(n, _ string) file { return setuid(text(n, "1")) }, sym, many, false},
		"fifo and link":       {func(n, _ string) file { return setuid(file{Name: n, Type: tar.TypeFifo}) }, sym, many, false},
		"link and file":       {sym, func(n, _ string) file { return setuid(text(n, "2")) }, many, false},
		"file and file":       {func(n, _ string) file { return text(n, "first") }, func(n, _ string) file { return setuid(text(n, "2")) }, many, false},
		"file and large file": {func(n, _ string) file { return text(n, string(make([]byte, 2*ipfs.LeafSize))) }, func(n, _ string) file { return text(n, "2") }, 20, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			root, outside := l.folder("root"), l.folder("outside")
			below := layertest.Tar(t, dir("usr"), dir("usr/lib"), sym("zlib", "usr/lib"))
			files := []file{dir("usr"), dir("usr/lib")}
			for i := range c.names {
				files = append(files, c.first(fmt.Sprint("usr/lib/", i), outside))
			}
			for i := range c.names {
				files = append(files, c.second(fmt.Sprint("zlib/", i), outside))
			}
			l.apply(l.convert(below), bind(root))
			_, err := l.Apply(t.Context(), l.convert(layertest.Tar(t, files...)), bind(root))
			if (err != nil) != c.refused || c.refused && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("refused: %t, want %t: %v", err != nil, c.refused, err)
			}
			info, err := os.Stat(outside)
			l.must(err)
			if info.Mode() != os.ModeDir|0o755 {
				t.Errorf("outside of the root, a directory has mode %v", info.Mode())
			}
			if c.refused {
				return
			}
			want := l.folder("want")
			for _, tarball := range [][]byte{below, layertest.Tar(t, files...)} {
				_, err := archive.Apply(t.Context(), want, bytes.NewReader(tarball))
				l.must(err)
			}
			l.same(1, want, root, func(path string) bool { return path == "." || path == "usr/lib" })
		})
	}
}

// TestImpliedInPlace finds that a link to a directory below the root serves as the directory,
// an absolute one from the root on, and that one that leads nowhere is replaced.
func TestImpliedInPlace(t *testing.T) {
	l := newLab(t)
	root := l.folder("root")
	l.apply(l.convert(layertest.Tar(t, dir("usr"), dir("usr/lib"), sym("abs", "/usr/lib"), sym("rel", "usr/../usr/lib"), sym("dangling", "none"), text("file", ""))), bind(root))
	l.apply(l.convert(layertest.Tar(t, text("abs/a", "1"), text("rel/b/c", "2"), text("dangling/d", "3"), text("file/e", "4"))), bind(root))
	for path, want := range map[string]string{"usr/lib/a": "1", "usr/lib/b/c": "2", "dangling/d": "3", "file/e": "4"} {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for path, want := range map[string]uint32{"abs": unix.S_IFLNK, "rel": unix.S_IFLNK, "dangling": unix.S_IFDIR, "file": unix.S_IFDIR} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, path), &st); err != nil || st.Mode&unix.S_IFMT != want {
			t.Errorf("%s: mode %o, %v", path, st.Mode, err)
		}
	}
}

// TestSizeThatLies unpacks a layer whose index claims another size than the file has: the
// hash of a single leaf does not tell.
func TestSizeThatLies(t *testing.T) {
	for _, size := range []int64{0, 3, 5} {
		l := newLab(t)
		leaf, err := ipfs.NewBlock(cid.Raw, []byte("four"))
		l.must(err)
		l.must(l.node.Put(t.Context(), leaf))
		x := &layer.Index{Entries: []layer.Entry{
			{Parent: -1, Link: -1, Mode: os.ModeDir | 0o755},
			{Parent: 0, Link: -1, Name: "a", Mode: 0o644, Size: size, Digest: string(leaf.Cid.Hash()[2:])},
		}}
		root := l.folder("root")
		_, err = l.Apply(t.Context(), l.forge(x), bind(root))
		if !errors.Is(err, ipfs.ErrFile) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("size %d: %v, want %v", size, err, ipfs.ErrFile)
		}
		if info, err := os.Stat(filepath.Join(root, "a")); err == nil && info.Size() > 0 {
			t.Errorf("size %d: %d bytes were written", size, info.Size())
		}
	}
}

// forge makes a layer root for an index that no tar makes. Its rootfs and tar-split are not
// there, which nobody notices who extracts the index.
func (l *lab) forge(x *layer.Index) ocispec.Descriptor {
	l.t.Helper()
	raw, err := layer.EncodeIndex(x)
	l.must(err)
	zip, err := zstd.NewWriter(nil)
	l.must(err)
	index, err := ipfs.NewBlock(cid.Raw, zip.EncodeAll(raw, nil))
	l.must(err)
	l.must(zip.Close())
	empty, err := ipfs.NewBlock(cid.DagProtobuf, []byte{0x0a, 0x02, 0x08, 0x01})
	l.must(err)
	var block []byte
	for _, k := range []struct {
		name string
		cid  cid.Cid
	}{{"index", index.Cid}, {"rootfs", empty.Cid}, {"tar-split", index.Cid}} {
		var link []byte
		link = protowire.AppendTag(link, 1, protowire.BytesType)
		link = protowire.AppendBytes(link, k.cid.Bytes())
		link = protowire.AppendTag(link, 2, protowire.BytesType)
		link = protowire.AppendString(link, k.name)
		link = protowire.AppendTag(link, 3, protowire.VarintType)
		link = protowire.AppendVarint(link, 1)
		block = protowire.AppendTag(block, 2, protowire.BytesType)
		block = protowire.AppendBytes(block, link)
	}
	root, err := ipfs.NewBlock(cid.DagProtobuf, append(block, 0x0a, 0x02, 0x08, 0x01))
	l.must(err)
	l.must(l.node.Put(l.t.Context(), index, root))
	dgst, err := mediatype.LayerDigest(root.Cid)
	l.must(err)
	return ocispec.Descriptor{MediaType: mediatype.Layer, Digest: dgst, Size: int64(len(root.Data))}
}

// TestNoLayer refuses digests that are of no layer.
func TestNoLayer(t *testing.T) {
	l := newLab(t)
	root := l.folder("root")
	leaf, err := ipfs.NewBlock(cid.DagProtobuf, []byte("no layer root"))
	l.must(err)
	l.must(l.node.Put(t.Context(), leaf))
	dgst, err := mediatype.LayerDigest(leaf.Cid)
	l.must(err)
	for name, c := range map[string]struct {
		digest digest.Digest
		is     func(error) bool
	}{
		"nobody has it":    {digest.FromString("nothing"), errdefs.IsUnavailable},
		"not a layer root": {dgst, errdefs.IsInvalidArgument},
		"another hash":     {digest.SHA512.FromString("x"), errdefs.IsInvalidArgument},
		"no digest":        {"", errdefs.IsInvalidArgument},
	} {
		_, err := l.Apply(t.Context(), ocispec.Descriptor{MediaType: mediatype.Layer, Digest: c.digest, Size: 1}, bind(root))
		if err == nil || !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = l.Apply(t.Context(), ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Digest: dgst, Size: 1}, bind(root))
	if !errdefs.IsNotImplemented(err) {
		t.Errorf("encrypted layer: %v", err)
	}
}
