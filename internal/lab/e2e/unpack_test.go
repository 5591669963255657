package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tree"
	"github.com/hinshun/ipcs/mediatype"
)

// ways are the ways in which stock containerd unpacks an image that it pulls.
var ways = map[string]func(w *world, ref, snapshotter string){
	"transfer service": (*world).pull,
	"ctr --local": func(w *world, ref, snapshotter string) {
		_, err := lab.Output(w.containerd.Ctr(w.t.Context(), "image", "pull", "--local", "--plain-http", "--snapshotter", snapshotter, ref))
		w.must(err)
	},
	"Go client": func(w *world, ref, snapshotter string) {
		client, err := containerd.New(w.containerd.Address, containerd.WithDefaultNamespace(lab.Namespace))
		w.must(err)
		defer func() { w.must(client.Close()) }()
		_, err = client.Pull(w.t.Context(), ref, containerd.WithPullUnpack, containerd.WithPullSnapshotter(snapshotter))
		w.must(err)
	},
}

// TestUnpack applies ipcs images to snapshotters that mount nothing lazily. What they show is
// what they show of the original, which containerd has applied.
func TestUnpack(t *testing.T) {
	layouts := append([]string{labtest.Image(t, "nasty"), labtest.Image(t, "small")}, external(t)...)
	w := newWorldWith(t, "unpack", options{loopback: true, unpack: true})
	for _, layout := range layouts {
		original := w.push(layout)
		ref := w.convert(original)
		for _, snapshotter := range []string{"overlayfs", "native"} {
			t.Run(filepath.Base(layout)+"/"+snapshotter, func(t *testing.T) {
				w := w.with(t)
				w.pull(original, snapshotter)
				want, anyMtime := w.tree(original, snapshotter), w.touched(original).Has
				if snapshotter == "native" { // copies folders from layer to layer, and their times are new
					anyMtime = folders(want)
				}
				for name, pull := range ways {
					if snapshotter == "native" && name != "transfer service" && os.Getenv("IPCS_CORPUS") == "" {
						continue // they unpack alike, and native copies every layer
					}
					start := time.Now()
					pull(w, ref, snapshotter)
					t.Logf("%s: %v", name, time.Since(start))
					diff := tree.Diff(want, w.tree(ref, snapshotter), anyMtime)
					if len(diff) > 0 {
						t.Errorf("%s: %d differences between the original (want) and the ipcs image (have):\n%s", name, len(diff),
							strings.Join(diff[:min(len(diff), shownDifferences)], "\n"))
					}
					w.remove(ref)
				}
				w.remove(original)
			})
		}
	}
}

// folders says which paths are directories.
func folders(entries []tree.Entry) func(path string) bool {
	paths := map[string]bool{}
	for _, e := range entries {
		if e.Mode&unix.S_IFMT == unix.S_IFDIR {
			paths[e.Path] = true
		}
	}
	return func(path string) bool { return paths[path] }
}

// remove removes an image and, since nothing else refers to them, its snapshots.
func (w *world) remove(ref string) {
	w.t.Helper()
	ctx := w.containerd.Context(w.t.Context())
	w.must(w.containerd.Client.ImageService().Delete(ctx, ref, images.SynchronousDelete()))
}

// TestUnpackWithoutDaemon pulls ordinary images while the daemon is down. As ipcs is
// installed, overlayfs does without; with the further configuration nothing is unpacked, which
// is said at once, with what is missing.
func TestUnpackWithoutDaemon(t *testing.T) {
	for name, unpack := range map[string]bool{"installed": false, "further configuration": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, "unpdown", options{loopback: true, unpack: unpack})
			ref := w.push(labtest.Image(t, "busybox"))
			w.must(w.daemon.Stop())
			for _, more := range [][]string{nil, {"--local"}} {
				args := append([]string{"image", "pull", "--plain-http", "--snapshotter", "overlayfs"}, more...)
				_, err := lab.Output(w.containerd.Ctr(t.Context(), append(args, ref)...))
				if failed := err != nil; failed != unpack || failed && !strings.Contains(err.Error(), "diff.sock") {
					t.Errorf("pull %v: %v", more, err)
				}
			}
		})
	}
}

// TestUnpackKept unpacks an image whose diffIDs were kept on a snapshotter that would mount
// it lazily: it takes part in the chains of the original.
func TestUnpackKept(t *testing.T) {
	w := newWorldWith(t, "kept", options{loopback: true, unpack: true})
	original := w.push(labtest.Image(t, "nasty"))
	kept := strings.TrimSuffix(original, "latest") + "kept"
	w.publish("--mediatype", "unixfs", "--keep-diff-ids", original, kept)
	for _, snapshotter := range []string{"ipcs", "overlayfs"} {
		w.pull(kept, snapshotter)
		got := w.tree(kept, snapshotter)
		w.remove(kept)
		w.pull(original, snapshotter)
		w.same(w.tree(original, snapshotter), got, w.touched(original))
		w.remove(original)
	}
}

// TestUnpackCRI has Kubernetes' door unpack an ipcs image on overlayfs.
func TestUnpackCRI(t *testing.T) {
	w := newWorldWith(t, "unpcri", options{cri: true, unpack: true})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ref := w.convert(w.push(labtest.Image(t, "small")))
	w.pushSandbox()
	k := w.kubelet()
	image := k.pull(ctx, ref)
	pod := k.runPod(ctx)
	w.in(kubernetes, ref).on("overlayfs")
	id := pod.start(ctx, image)
	pod.readUnfetched(ctx, id)
	pod.stop(ctx, id)
	pod.remove(ctx)
}

// TestCommitIpcs makes an ipcs layer of what a container changed, on an ipcs image and on an
// ordinary one, and runs both.
func TestCommitIpcs(t *testing.T) {
	w := newWorldWith(t, "commitip", options{loopback: true, unpack: true})
	ordinary := w.push(labtest.Image(t, "small"))
	ipcs := w.convert(ordinary)
	for _, c := range []struct{ ref, snapshotter string }{{ipcs, "ipcs"}, {ordinary, "ipcs"}, {ordinary, "overlayfs"}, {ipcs, "overlayfs"}} {
		t.Run(filepath.Base(c.ref)+"/"+c.snapshotter, func(t *testing.T) {
			w := w.with(t)
			ctx := w.containerd.Context(t.Context())
			lease, err := w.containerd.Client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
			w.must(err)
			ctx = leases.WithLease(ctx, lease.ID)
			w.pull(c.ref, c.snapshotter)
			img, err := w.containerd.Client.GetImage(ctx, c.ref)
			w.must(err)
			v, err := w.containerd.Writable(ctx, c.ref, c.snapshotter)
			w.must(err)
			w.edit(v.Root)
			want, err := tree.Read(v.Root)
			w.must(err)
			w.must(v.Unmount())
			made, err := rootfs.CreateDiff(ctx, v.Key(), w.containerd.Client.SnapshotService(c.snapshotter), w.containerd.Client.DiffService(),
				diff.WithMediaType(mediatype.Layer))
			w.must(err)
			w.must(v.Close(ctx))
			if made.MediaType != mediatype.Layer || made.Size > 4096 {
				t.Errorf("layer %+v", made)
			}
			committed, err := w.commit(ctx, img, made)
			w.must(err)
			w.must(committed.Unpack(ctx, c.snapshotter))
			w.sameButTimes(want, w.tree(committed.Name(), c.snapshotter))
			w.must(w.containerd.Client.LeasesService().Delete(ctx, lease))
			w.remove(committed.Name())
			w.remove(c.ref)
		})
	}
}
