//go:build linux

package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/layer/layertest"
)

// A host is where containerd's extraction runs: a tmpfs with one directory a layer.
type host struct {
	dir    string
	layers []string // topmost first, as lowerdir has them
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{dir: t.TempDir()}
	hosttest.Mount(t, "tmpfs", h.dir, "tmpfs", "mode=0755")
	return h
}

// apply extracts one layer as containerd's applier does onto an overlay mount.
func (h *host) apply(t *testing.T, tarball []byte) error {
	t.Helper()
	var opts []archive.ApplyOpt
	if len(h.layers) > 0 {
		opts = append(opts, archive.WithParents(h.layers))
	}
	dir, err := h.extract(t, tarball, opts...)
	if err == nil {
		h.layers = append([]string{dir}, h.layers...)
	}
	return err
}

// applyAlone extracts one layer as if there were none below, and leaves it out.
func (h *host) applyAlone(t *testing.T, tarball []byte) error {
	t.Helper()
	_, err := h.extract(t, tarball)
	return err
}

func (h *host) extract(t *testing.T, tarball []byte, opts ...archive.ApplyOpt) (string, error) {
	t.Helper()
	dir := filepath.Join(h.dir, fmt.Sprint(len(h.layers)))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	opts = append(opts, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
	_, err := archive.Apply(context.Background(), dir, bytes.NewReader(tarball), opts...)
	return dir, err
}

// view mounts the layers as a container gets them, and describes every path.
func (h *host) view(t *testing.T) map[string]string {
	t.Helper()
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(h.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(h.dir, "merged")
	hosttest.Mount(t, "overlay", merged, "overlay", fmt.Sprintf("index=off,workdir=%s/work,upperdir=%s/upper,lowerdir=%s", h.dir, h.dir, strings.Join(h.layers, ":")))
	out := make(map[string]string)
	inodes := make(map[uint64]string)
	err := filepath.WalkDir(merged, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a whiteout that hides nothing: the kernel lists it, and then denies it
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(merged, p)
		if err == nil && rel != "." {
			s, derr := describe(p, rel, inodes)
			if errors.Is(derr, fs.ErrNotExist) {
				return nil
			}
			out[rel], err = s, derr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func describe(p, rel string, inodes map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	fi, err := os.Lstat(p)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v %d:%d", fi.Mode(), st.Uid, st.Gid)
	if !fi.IsDir() {
		if inodes[st.Ino] == "" {
			inodes[st.Ino] = rel
		}
		fmt.Fprintf(&b, " %d names of %s", st.Nlink, inodes[st.Ino])
	}
	fmt.Fprintf(&b, " mtime %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	switch {
	case fi.Mode().IsRegular():
		data, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " %x", sha256.Sum256(data))
	case fi.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " -> %s", target)
	case fi.Mode()&os.ModeDevice != 0:
		fmt.Fprintf(&b, " %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return b.String() + hostXattrs(p), nil
}

func hostXattrs(p string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return " " + err.Error()
	}
	var all []string
	for _, name := range strings.Split(string(buf[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") || name == "security.selinux" {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			return " " + err.Error()
		}
		all = append(all, fmt.Sprintf(" %s=%x", name, v[:n]))
	}
	sort.Strings(all)
	return strings.Join(all, "")
}

// treeView describes every path of a merged tree as describe does.
func treeView(tree *flatTree) map[string]string {
	out := make(map[string]string)
	inodes := make(map[int32]string)
	var walk func(node int32, path string)
	walk = func(node int32, path string) {
		for _, c := range tree.Nodes[node].Children {
			rel := filepath.Join(path, tree.Nodes[c].Name)
			out[rel] = describeInode(tree, tree.Nodes[c].Inode, rel, inodes)
			walk(c, rel)
		}
	}
	walk(0, "")
	return out
}

func describeInode(tree *flatTree, i int32, rel string, inodes map[int32]string) string {
	n := &tree.Inodes[i]
	var b strings.Builder
	fmt.Fprintf(&b, "%v %d:%d", n.Mode, n.UID, n.GID)
	if !n.Mode.IsDir() {
		if inodes[i] == "" {
			inodes[i] = rel
		}
		fmt.Fprintf(&b, " %d names of %s", n.Nlink, inodes[i])
	}
	fmt.Fprintf(&b, " mtime %d.%09d", n.Mtime, n.MtimeNsec)
	switch {
	case n.Mode.IsRegular():
		fmt.Fprintf(&b, " %x", n.Digest)
	case n.Mode&os.ModeSymlink != 0:
		fmt.Fprintf(&b, " -> %s", n.Target)
	case n.Mode&os.ModeDevice != 0:
		major, minor := n.Device()
		fmt.Fprintf(&b, " %d:%d", major, minor)
	}
	for _, a := range n.Xattrs() {
		fmt.Fprintf(&b, " %s=%x", a.Name, a.Value)
	}
	return b.String()
}

// compareViews compares what the kernel shows with what Merge says. The time of a
// directory that some layer has no entry for is when it was unpacked: it is not compared.
func compareViews(t *testing.T, host, ours map[string]string, timeless map[string]bool) {
	t.Helper()
	for p, want := range host {
		got, ok := ours[p]
		if timeless[p] {
			got, want = withoutTime(got), withoutTime(want)
		}
		if !ok || got != want {
			t.Errorf("%s:\n  containerd %s\n  merge      %s", p, want, got)
		}
	}
	for p, got := range ours {
		if _, ok := host[p]; !ok {
			t.Errorf("%s: only in merge: %s", p, got)
		}
	}
}

func withoutTime(s string) string {
	i := strings.Index(s, " mtime ")
	if i < 0 {
		return s
	}
	rest := s[i+len(" mtime "):]
	if j := strings.IndexByte(rest, ' '); j >= 0 {
		return s[:i] + rest[j:]
	}
	return s[:i]
}

// timeless lists the paths that are implied in a layer.
func timeless(layers []*Index) map[string]bool {
	out := make(map[string]bool)
	for _, x := range layers {
		for i := range x.Entries {
			if x.Entries[i].Implied {
				out[x.Path(i)] = true
			}
		}
	}
	return out
}

// runDifferential applies the same layers with containerd and with Write and Merge. A
// layer that both refuse is left out.
func runDifferential(t *testing.T, layers [][]file) {
	t.Helper()
	h := newHost(t)
	var indexes []*Index
	for k, files := range layers {
		tarball := layertest.Tar(t, files...)
		theirs := h.apply(t, tarball)
		m := newMemory()
		r, err := Write(context.Background(), m, bytes.NewReader(tarball), WriteOptions{})
		if theirs != nil && err == nil && h.applyAlone(t, tarball) == nil {
			// containerd stumbles over a lower layer when it looks for what an implied
			// directory was there. Such a chain is not for comparing.
			return
		}
		if (theirs == nil) != (err == nil) {
			t.Fatalf("layer %d:\n  containerd: %v\n  Write: %v\n%s", k, theirs, err, listing(files))
		}
		if err == nil {
			indexes = append(indexes, checkLayer(t, m, r, tarball).Index)
		}
	}
	if len(indexes) == 0 {
		return
	}
	compareViews(t, h.view(t), treeView(merge(t, true, indexes...)), timeless(indexes))
	if t.Failed() {
		for k, files := range layers {
			t.Logf("layer %d:\n%s", k, listing(files))
		}
	}
}

func listing(files []file) string {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "    %c %q %q %o %d:%d %v %d:%d @%d\n", max(f.Type, '0'), f.Name, f.Link, f.Mode, f.UID, f.GID, f.Xattrs, f.Major, f.Minor, f.Sec)
	}
	return b.String()
}
