package layer

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
)

// A breaker makes the cases of broken.json of one layer that is right.
type breaker struct {
	t      *testing.T
	m      *memory
	l      *Layer
	diffID string
	all    []brokenVector
}

func brokenVectors(t *testing.T) []brokenVector {
	t.Helper()
	tarball := buildTar(t, ended(dirEntry("d/"), fileEntry("d/a", "same"), fileEntry("d/b", "same"), fileEntry("x", "first"),
		fileEntry("x", "second"), fileEntry("e", ""), symEntry("s", "d/a"), linkEntry("h", "d/a")))
	l, m := convert(t, tarball)
	b := &breaker{t: t, m: m, l: l, diffID: layerOf(t, tarball).DiffID}
	b.add("a layer that is right", stepVerify, "", l.Root)
	b.roots()
	b.frames()
	b.indexes()
	b.rebuilds()
	b.views()
	return b.all
}

// add adds the layer of a root block, and spoils some of its blocks.
func (b *breaker) add(name, step, word string, root ipfs.Block, spoiled ...cid.Cid) {
	b.t.Helper()
	blocks := map[string]string{root.Cid.String(): hex.EncodeToString(root.Data)}
	links, _, err := parseNode(string(root.Data))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, k := range links {
		if k.name == linkIndex || step == stepVerify || step == stepRebuild && k.name != linkRootfs {
			b.gather(k.cid, blocks)
		}
	}
	if step != stepOpen {
		b.gatherLeaves(root, blocks)
	}
	for _, c := range spoiled {
		if _, ok := blocks[c.String()]; !ok {
			b.t.Fatalf("%s: the layer has no block %s", name, c)
		}
		blocks[c.String()] += "00"
	}
	v := brokenVector{Name: name, Root: root.Cid.String(), Blocks: blocks, Step: step, Error: word}
	if step == stepVerify {
		v.DiffID = b.diffID
	}
	b.all = append(b.all, v)
}

// gather adds a block and all below it.
func (b *breaker) gather(c cid.Cid, into map[string]string) {
	data, ok := b.m.blocks[c]
	if _, again := into[c.String()]; again || !ok {
		return
	}
	into[c.String()] = hex.EncodeToString(data)
	if c.Type() != cid.DagProtobuf {
		return
	}
	links, _, err := parseNode(string(data))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, k := range links {
		b.gather(k.cid, into)
	}
}

// gatherLeaves adds the files that the index names.
func (b *breaker) gatherLeaves(root ipfs.Block, into map[string]string) {
	l, err := OpenBlock(b.t.Context(), b.m, root)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range l.Index.Entries {
		if e := &l.Index.Entries[i]; e.Mode.IsRegular() && e.Link < 0 && !e.Whiteout {
			b.gather(e.File().Cid, into)
		}
	}
}

// relink is the layer root with another block behind one of its links.
func (b *breaker) relink(name string, c cid.Cid) ipfs.Block {
	b.t.Helper()
	links, _, err := parseNode(string(b.l.Root.Data))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range links {
		if k := &links[i]; k.name == name {
			k.cid, k.tsize = c, uint64(len(b.m.blocks[c]))
		}
	}
	return b.node(directoryNode(links))
}

// node puts a dag-pb block.
func (b *breaker) node(data []byte) ipfs.Block {
	b.t.Helper()
	block, err := ipfs.NewBlock(cid.DagProtobuf, data)
	if err == nil {
		err = b.m.Put(context.Background(), block)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return block
}

// indexed is the layer root with the link to an index whose file holds this.
func (b *breaker) indexed(file []byte) ipfs.Block {
	return b.relink(linkIndex, putFile(b.t, b.m, file))
}

func (b *breaker) rawIndex(x *Index) []byte {
	b.t.Helper()
	raw, err := EncodeIndex(x)
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

// roots breaks the layer root, and what leads from it to the bytes of the index.
func (b *breaker) roots() {
	links, _, err := parseNode(string(b.l.Root.Data))
	if err != nil {
		b.t.Fatal(err)
	}
	b.add("another link in the layer root", stepOpen, "root", b.node(directoryNode(append(links, link{"x", b.l.Rootfs, 1}))))
	b.add("other bytes of the layer root", stepOpen, "hash", b.l.Root, b.l.Root.Cid)
	b.add("other bytes of the index", stepOpen, "hash", b.l.Root, b.l.IndexCid)
	// A file of one leaf is that leaf, and has no node.
	size := len(b.m.blocks[b.l.IndexCid])
	data := varints(tagDataType, 2, tagDataSize, uint64(size), 4<<3, uint64(size))
	node := directoryNode([]link{{"", b.l.IndexCid, uint64(size)}})
	node = append(node[:len(node)-len(directoryNode(nil))], varints(tagNodeData, uint64(len(data)))+data...)
	b.add("an index with a node above its only leaf", stepOpen, "file", b.relink(linkIndex, b.node(node).Cid))
	claims := func(size uint64, leaves int) cid.Cid {
		data := varints(tagDataType, 2, tagDataSize, size)
		node := directoryNode(slices.Repeat([]link{{"", b.l.IndexCid, uint64(len(b.m.blocks[b.l.IndexCid]))}}, leaves))
		node = append(node[:len(node)-len(directoryNode(nil))], varints(tagNodeData, uint64(len(data)))+data...)
		return b.node(node).Cid
	}
	b.add("an index of more than 256 MiB", stepOpen, "limit", b.relink(linkIndex, claims(MaxIndexFile+1, 257)))
	b.add("an index with more leaves than its size needs", stepOpen, "file", b.relink(linkIndex, claims(ipfs.LeafSize+1, 3)))
}

// frames breaks the compression.
func (b *breaker) frames() {
	raw := b.rawIndex(b.l.Index)
	zip := zipped(b.t, raw)
	b.add("an index that is not compressed", stepOpen, "index", b.indexed(raw))
	b.add("an index that is cut off", stepOpen, "index", b.indexed(zip[:len(zip)-6]))
	b.add("bytes after the index", stepOpen, "index", b.indexed(append(slices.Clone(zip), "more"...)))
	b.add("an index with a dictionary", stepOpen, "index", b.indexed(zstdFrame([]byte{1, window4M, 7}, zstdBlock{data: raw})))
	b.add("an index with a dictionary ID of 0", stepVerify, "", b.indexed(zstdFrame([]byte{1, window4M, 0}, zstdBlock{data: raw})))
	b.add("an index with another checksum", stepOpen, "index", b.indexed(append(slices.Clone(zip[:len(zip)-1]), ^zip[len(zip)-1])))
	b.add("an index with a window of 8 MiB", stepOpen, "index", b.indexed(zstdFrame([]byte{0, window8M}, zstdBlock{data: raw})))
	before, blocks := leavesIndex(b.t, 40)
	size := binary.LittleEndian.AppendUint32([]byte{singleSegment}, uint32(len(before)+40*zstdMost))
	b.add("an index that is a single segment of more than 4 MiB", stepOpen, "index", b.indexed(zstdFrame(size, blocks...)))
	_, blocks = leavesIndex(b.t, 136)
	b.add("an index that expands too much", stepOpen, "limit", b.indexed(zstdFrame([]byte{0, window4M}, blocks...)))
}

// indexes breaks the index.
func (b *breaker) indexes() {
	size, digest, leaves := largeFile(b.t)
	large := Entry{Name: "a", Link: -1, Mode: 0o644, Size: size, Digest: digest, Extra: &Extra{Leaves: leaves}}
	other := large
	other.Digest = someDigest
	steer := large
	steer.Extra = &Extra{Leaves: leaves, Xattrs: []Xattr{{"trusted.overlay.redirect", "/x"}}}
	depths := []int{0, 1}
	b.add("an index that has another encoding", stepOpen, "index", b.indexed(zipped(b.t, append(b.rawIndex(b.l.Index), 4<<3, 1))))
	b.add("leaves of another file", stepOpen, "file", b.indexed(zipped(b.t, rawIndex(depths, root(), other))))
	b.add("an attribute of overlayfs", stepOpen, "xattr", b.indexed(zipped(b.t, rawIndex(depths, root(), steer))))
}

// rebuilds breaks what the tar is rebuilt from.
func (b *breaker) rebuilds() {
	zip := b.m.blocks[b.l.TarSplit]
	split := func(file []byte) ipfs.Block { return b.relink(linkTarSplit, putFile(b.t, b.m, file)) }
	x, h := b.entry("x"), b.entry("h")
	places := layerPlaces(b.t, b.l, b.m)
	for i, p := range places {
		if p == b.l.Index.Entries[h].Link {
			places[i] = h
		}
	}
	// The leaf has five bytes, index and tar-split say six.
	short := changed(b.t, b.l.Index, "x", func(e *Entry) { e.Digest = sumOf(putFile(b.t, b.m, []byte("first"))) })
	numbered := putShadowed(b.t, b.m, 1, "first")
	b.add("a tar-split that is not compressed", stepRebuild, "tar-split", split([]byte("nonsense")))
	b.add("a tar-split with a window of 8 MiB", stepRebuild, "tar-split", split(zstdFrame([]byte{0, window8M}, zstdBlock{data: []byte(splitMagic + recTable())})))
	b.add("bytes after the tar-split", stepRebuild, "tar-split", split(append(slices.Clone(zip), "more"...)))
	b.add("a hard link as a place", stepRebuild, "tar-split", split(withPlaces(b.t, b.l, b.m, places)))
	b.add("shadowed files numbered from 1", stepRebuild, "tar-split", b.relink(linkShadowed, numbered.cid))
	b.add("a leaf of another length", stepRebuild, "file", forge{index: short}.put(b.t, b.m, b.l))
	b.add("other bytes of the tar-split", stepRebuild, "hash", b.l.Root, b.l.TarSplit)
	b.add("other bytes of a file", stepRebuild, "hash", b.l.Root, b.l.Index.Entries[x].File().Cid)
	b.add("other bytes of a shadowed file", stepRebuild, "hash", b.l.Root, putFile(b.t, b.m, []byte("first")))
}

// views changes a part of the layer, so that each is right by itself.
func (b *breaker) views() {
	other, m := convert(b.t, buildTar(b.t, ended(fileEntry("x", "third"), fileEntry("x", ""))))
	maps.Copy(b.m.blocks, m.blocks)
	x := b.l.Index
	forged := func(name, word string, f forge) { b.add(name, stepVerify, word, f.put(b.t, b.m, b.l)) }
	mode := changed(b.t, x, "b", func(e *Entry) { e.Mode |= 0o111 })
	moved := changed(b.t, x, "b", func(e *Entry) { e.Name = "c" })
	evil := changed(b.t, x, "e", func(e *Entry) { e.Digest, e.Size = sumOf(putFile(b.t, b.m, []byte("evil"))), 4 })
	hidden := &Index{Entries: append(slices.Clone(x.Entries), Entry{Name: "z", Link: -1, Whiteout: true})}
	forged("a mode in the index", "views", forge{index: mode})
	forged("a name in the index", "views", forge{index: moved})
	forged("a name in the index and in rootfs", "views", forge{index: moved, rootfs: moved})
	forged("an entry that no tar has", "views", forge{index: hidden})
	forged("a content in the index and in rootfs", "views", forge{index: evil, rootfs: evil})
	forged("a content in rootfs", "views", forge{rootfs: evil})
	forged("a place in the tar-split", "views", forge{tarSplit: putFile(b.t, b.m, swapped(b.t, b.l, b.m))})
	forged("a Tsize", "views", forge{tsize: 1})
	forged("a shadowed file", "diff-id", forge{shadowed: other.Shadowed})
	b.add("another diffID", stepVerify, "diff-id", b.l.Root)
	b.all[len(b.all)-1].DiffID = "sha256:" + hex.EncodeToString([]byte(someDigest))
	// A tar-split may give back anything; the shadowed file is in it, since there is one.
	bytes := putFile(b.t, b.m, zipped(b.t, []byte(splitMagic+recRaw("no tar: ")+recPayload(5)+recTable(0))))
	b.add("a tar that a writer refuses", stepVerify, "tar", forge{tarSplit: bytes}.put(b.t, b.m, b.l))
	b.all[len(b.all)-1].DiffID = digest.FromString("no tar: first").String()
	b.add("other bytes of rootfs", stepVerify, "hash", b.l.Root, b.l.Rootfs)
	b.add("other bytes of an empty file", stepVerify, "hash", b.l.Root, x.Entries[b.entry("e")].File().Cid)
}

// entry returns the number of an entry.
func (b *breaker) entry(name string) int32 {
	b.t.Helper()
	i := slices.IndexFunc(b.l.Index.Entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		b.t.Fatalf("no entry is called %s", name)
	}
	return int32(i)
}
