//go:build linux

package snapshotter_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/snapshotter"
)

// asked is a call of a prefetcher.
type asked struct {
	priority fetch.Priority
	files    []cid.Cid
	ctx      context.Context
}

// prefetcher gets nothing, and tells what it was asked for. Calls to fill last until they
// are ended.
type prefetcher struct{ calls chan asked }

func (p prefetcher) Prefetch(ctx context.Context, files iter.Seq[ipfs.File], priority fetch.Priority) error {
	call := asked{priority: priority, ctx: ctx}
	for f := range files {
		call.files = append(call.files, f.Cid)
	}
	p.calls <- call
	if priority == fetch.Fill {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// PrefetchParts tells leaves as if they were files.
func (p prefetcher) PrefetchParts(ctx context.Context, parts iter.Seq[fetch.Part], priority fetch.Priority) error {
	return p.Prefetch(ctx, func(yield func(ipfs.File) bool) {
		for part := range parts {
			if part.Leaf != fetch.AllLeaves {
				part.Cid = part.File.Leaf(part.Leaf)
			}
			if !yield(part.File) {
				return
			}
		}
	}, priority)
}

// Has says that nothing is here.
func (prefetcher) Has(ipfs.File) bool                 { return false }
func (prefetcher) LeavesRead(ipfs.File) ([]int, bool) { return nil, false }

// cidOf is the CID of a file with this content.
func cidOf(t testing.TB, content string) cid.Cid {
	t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return b.Cid
}

// abcLayer is a layer with three files.
func (l *lab) abcLayer() ipfs.Block {
	l.t.Helper()
	return l.convert(tarOf(l.t, []entry{file("a", "is a", 0o644), file("b", "is b", 0o644), file("c", "is c", 0o644)}))
}

// abc is an image of it, whose record names a profile with these files.
func (l *lab) abc(profile ...string) chain {
	l.t.Helper()
	root := l.abcLayer()
	labels, id := layerLabels("", root)
	if len(profile) > 0 {
		labels[mediatype.AnnotationImage] = l.record(root, profile...).String()
	}
	_, err := l.Prepare(l.ctx, l.key("extract-1 "+id.String()), "", snapshots.WithLabels(labels))
	if !errdefs.IsAlreadyExists(err) {
		l.t.Fatal(err)
	}
	return chain{l.find(id, ""), id}
}

// record makes the image record of an image of one layer, with a profile of these files.
func (l *lab) record(root ipfs.Block, profile ...string) cid.Cid {
	l.t.Helper()
	var files []cid.Cid
	for _, content := range profile {
		files = append(files, cidOf(l.t, content))
	}
	b, err := layer.EncodeProfile(files)
	if err != nil {
		l.t.Fatal(err)
	}
	d, err := mediatype.LayerDigest(root.Cid)
	if err != nil {
		l.t.Fatal(err)
	}
	record, err := layer.EncodeImage(&layer.Image{Layers: []layer.ImageLayer{{Digest: d, Block: root.Data}}, Profile: l.put(b).String()})
	if err != nil {
		l.t.Fatal(err)
	}
	return l.put(record)
}

// put puts a raw block on the node.
func (l *lab) put(b []byte) cid.Cid {
	l.t.Helper()
	block, err := ipfs.NewBlock(cid.Raw, b)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.node.Put(l.ctx, block); err != nil {
		l.t.Fatal(err)
	}
	return block.Cid
}

// TestAhead finds that the files of the profile are asked for first, in order, and then
// all; once for an image, as long as containers use it, and again by the next daemon.
func TestAhead(t *testing.T) {
	l := newLab(t)
	p := prefetcher{make(chan asked, 10)}
	l.config.Prefetch, l.config.Fill = p, snapshotter.FillOn
	l.restart()
	c := l.abc("is c", "is of another image", "is a")
	want := func(priority fetch.Priority, contents ...string) asked {
		t.Helper()
		call := <-p.calls
		var files []cid.Cid
		for _, content := range contents {
			files = append(files, cidOf(t, content))
		}
		if priority == fetch.Fill {
			for _, list := range [][]cid.Cid{files, call.files} {
				slices.SortFunc(list, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
			}
		}
		if call.priority != priority || !slices.Equal(call.files, files) {
			t.Fatalf("asked for %v at priority %d, want %v at %d", call.files, call.priority, files, priority)
		}
		return call
	}
	first, _ := l.active(l.Snapshotter, c.parent)
	want(fetch.Profile, "is c", "is a")
	filling := want(fetch.Fill, "is a", "is b", "is c")
	second, _ := l.active(l.Snapshotter, c.parent)
	if _, err := l.Mounts(l.ctx, first); err != nil {
		t.Fatal(err)
	}
	remove := func(key string) {
		t.Helper()
		if err := l.Remove(l.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	remove(first)
	if filling.ctx.Err() != nil {
		t.Error("filling ended though a container uses the image")
	}
	l.restart()
	<-filling.ctx.Done()
	want(fetch.Profile, "is c", "is a")
	filling = want(fetch.Fill, "is a", "is b", "is c")
	remove(second)
	<-filling.ctx.Done()
	if len(p.calls) > 0 {
		t.Errorf("asked once more: %+v", <-p.calls)
	}
	own, err := layer.EncodeProfile([]cid.Cid{cidOf(t, "is b")})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.PutProfile(c.id, own); err != nil {
		t.Fatal(err)
	}
	l.active(l.Snapshotter, c.parent)
	want(fetch.Profile, "is b")
	want(fetch.Profile, "is c", "is a")
}

// TestAheadWithoutTheProfileOfTheImage asks for the files of the profile that is here while
// the one that the image names does not come.
func TestAheadWithoutTheProfileOfTheImage(t *testing.T) {
	l := newLab(t)
	p := prefetcher{make(chan asked, 10)}
	l.config.Prefetch = p
	l.restart()
	given, err := layer.EncodeProfile([]cid.Cid{cidOf(t, "is c")})
	if err != nil {
		t.Fatal(err)
	}
	block, err := ipfs.NewBlock(cid.Raw, given)
	if err != nil {
		t.Fatal(err)
	}
	c, come := l.abc("is c"), make(chan struct{})
	l.node.SetFault(func(_ string, c cid.Cid) error {
		if c == block.Cid {
			<-come
		}
		return nil
	})
	own, err := layer.EncodeProfile([]cid.Cid{cidOf(t, "is b")})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.PutProfile(c.id, own); err != nil {
		t.Fatal(err)
	}
	l.active(l.Snapshotter, c.parent)
	if call := <-p.calls; !slices.Equal(call.files, []cid.Cid{cidOf(t, "is b")}) {
		t.Errorf("asked for %v", call.files)
	}
	close(come)
	if call := <-p.calls; !slices.Equal(call.files, []cid.Cid{cidOf(t, "is c")}) {
		t.Errorf("then asked for %v", call.files)
	}
}

func TestFillModes(t *testing.T) {
	for _, c := range []struct {
		mode       snapshotter.FillMode
		annotation string
		want       bool
	}{
		{snapshotter.FillOn, "", true}, {snapshotter.FillOn, "false", false}, {snapshotter.FillOn, "?", true},
		{snapshotter.FillAnnotated, "", false}, {snapshotter.FillAnnotated, "true", true}, {snapshotter.FillAnnotated, "?", false},
		{snapshotter.FillOff, "true", false}, {"", "true", false},
	} {
		if got := snapshotter.Fills(c.mode, c.annotation); got != c.want {
			t.Errorf("mode %q with annotation %q fills: %v", c.mode, c.annotation, got)
		}
	}
}

// TestFill has all files of an image here without anybody reading any.
func TestFill(t *testing.T) {
	l, publisher, store := newLazyLab(t)
	l.config.Fill = snapshotter.FillOn
	l.restart()
	ipcs, _ := l.buildAt(publisher, "iii", stack())
	l.active(l.Snapshotter, ipcs.parent)
	status := l.Status()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for file := range l.ChainFiles(status[0].ID) {
		for !store.HasFile(file) {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("not all files came")
			}
		}
	}
}

// TestProfiles lists, gives and takes profiles.
func TestProfiles(t *testing.T) {
	l := newLab(t)
	c := l.abc()
	other := chain{id: "sha256:" + c.id[len("sha256:"):len(c.id)-4] + "0123"}
	b, err := layer.EncodeProfile([]cid.Cid{cidOf(t, "is b"), cidOf(t, "is a")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Profile(l.ctx, ""); !errdefs.IsNotFound(err) {
		t.Errorf("a profile where there is none: %v", err)
	}
	for _, id := range []chain{c, other} {
		if err := l.PutProfile(id.id, b); err != nil {
			t.Fatal(err)
		}
	}
	l.restart()
	all, err := l.Profiles(l.ctx)
	if err != nil || len(all) != 2 || all[0].Files != 2 || all[1].Files != 2 {
		t.Fatalf("profiles are %+v, %v", all, err)
	}
	for _, name := range []string{"", c.id.String(), c.id.Encoded()} {
		if got, err := l.Profile(l.ctx, name); err != nil || !slices.Equal(got, b) {
			t.Errorf("profile of %q is %q, %v", name, got, err)
		}
	}
	if _, err := l.Profile(l.ctx, c.id.Encoded()[:20]); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a profile of two images: %v", err)
	}
	if err := l.PutProfile(c.id, b[1:]); !errors.Is(err, layer.ErrProfile) || !errdefs.IsInvalidArgument(err) {
		t.Errorf("a profile that is none: %v", err)
	}
	if err := l.PutProfile("sha256:../../x", b); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a chainID that is none: %v", err)
	}
}
