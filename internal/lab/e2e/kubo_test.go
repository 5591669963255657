package e2e

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"math/bits"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/mediatype"
)

// profile makes "ipfs add" build what the profile unixfs-v1-2025 says, hidden files included.
var profile = []string{"add", "--quieter", "--recursive", "--hidden", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--max-file-links=1024"}

// TestKubo reads a converted image with the stock tools of IPFS: a layer is a directory like
// any other, and importing its files again makes the same one.
func TestKubo(t *testing.T) {
	labtest.Tools(t, tools.Kubo...)
	w := newWorld(t, "kubo", 0)
	kubo, err := w.store.StartKubo(t.Context(), lab.KuboOptions{})
	w.must(err)
	for _, name := range []string{"small", "nasty"} {
		t.Run(name, func(t *testing.T) {
			w := w.with(t)
			original := w.push(labtest.Image(t, name))
			ref := strings.TrimSuffix(original, "latest") + "kubo"
			_, err := lab.Output(w.store.Command(t.Context(), "convert", "--mediatype", "unixfs", "--plain-http", "--ipfs-api", kubo.API, original, ref))
			w.must(err)
			for _, root := range w.roots(ref) {
				w.readWithKubo(kubo, root)
			}
		})
	}
}

// roots are the layer roots of an image that was converted.
func (w *world) roots(ref string) []cid.Cid {
	w.t.Helper()
	ctx := w.containerd.Context(w.t.Context())
	_, err := lab.Output(w.containerd.Ctr(ctx, "content", "fetch", "--plain-http", ref))
	w.must(err)
	img, err := w.containerd.Client.ImageService().Get(ctx, ref)
	w.must(err)
	manifest, err := images.Manifest(ctx, w.containerd.Client.ContentStore(), img.Target, platforms.Default())
	w.must(err)
	var roots []cid.Cid
	for _, l := range manifest.Layers {
		root, err := mediatype.RootCid(l.Digest)
		w.must(err)
		roots = append(roots, root)
	}
	return roots
}

// readWithKubo gets a layer's files with ipfs ls, cat, get and from the gateway, and adds
// them again.
func (w *world) readWithKubo(kubo *lab.Kubo, root cid.Cid) {
	w.t.Helper()
	ctx, at := w.t.Context(), "/ipfs/"+root.String()+"/rootfs"
	dir := filepath.Join(w.store.Dir(), "got-"+root.String())
	_, err := lab.Output(kubo.Command(ctx, "get", "--output", dir, at))
	w.must(err)
	w.compareListing(kubo, at, dir)
	w.readSome(kubo, at, dir)

	added, err := lab.Output(kubo.Command(ctx, append(slices.Clone(profile), dir)...))
	w.must(err)
	want, err := lab.Output(kubo.Command(ctx, "resolve", "-r", at))
	w.must(err)
	if "/ipfs/"+strings.TrimSpace(added) != strings.TrimSpace(want) {
		w.t.Errorf("ipfs add makes %s of the files, rootfs is %s", strings.TrimSpace(added), strings.TrimSpace(want))
	}
	w.pinKeepsAll(kubo, root)
}

// compareListing compares ipfs ls of the root with what ipfs get made of it.
func (w *world) compareListing(kubo *lab.Kubo, at, dir string) {
	w.t.Helper()
	out, err := lab.Output(kubo.Command(w.t.Context(), "ls", "--size=false", "--resolve-type=false", at))
	w.must(err)
	var listed []string
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if _, name, ok := strings.Cut(line, " "); ok {
			listed = append(listed, strings.TrimSuffix(strings.TrimSpace(name), "/"))
		}
	}
	entries, err := os.ReadDir(dir)
	w.must(err)
	if len(listed) != len(entries) {
		w.t.Errorf("ipfs ls lists %d names, ipfs get makes %d", len(listed), len(entries))
	}
	for _, e := range entries {
		if !slices.Contains(listed, e.Name()) && !strings.ContainsAny(e.Name(), "\n\t") {
			w.t.Errorf("ipfs ls does not list %q", e.Name())
		}
	}
}

// readSome reads files of several sizes with ipfs cat and from the gateway.
func (w *world) readSome(kubo *lab.Kubo, at, dir string) {
	w.t.Helper()
	client := w.store.HTTPClient()
	defer client.CloseIdleConnections()
	read := map[int]bool{} // by the power of two of the size
	w.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		class := bits.Len64(uint64(info.Size()))
		if err != nil || read[class] || !utf8.ValidString(rel) {
			return err
		}
		read[class] = true
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := lab.Output(kubo.Command(w.t.Context(), "cat", at+"/"+rel))
		if err != nil {
			return err
		}
		if got != string(want) {
			w.t.Errorf("ipfs cat of %s gives %d bytes, want %d", rel, len(got), len(want))
		}
		if strings.ContainsFunc(rel, unicode.IsControl) {
			return nil // Kubo's gateway breaks its own headers with these
		}
		served, err := fetchURL(w.t.Context(), client, (&url.URL{Scheme: "http", Host: kubo.Gateway, Path: at + "/" + rel}).String())
		if err != nil {
			return err
		}
		if string(served) != string(want) {
			w.t.Errorf("the gateway serves %d bytes of %s, want %d", len(served), rel, len(want))
		}
		return nil
	}))
}

func fetchURL(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// pinKeepsAll pins the layer root alone, collects the garbage, and reads every block.
func (w *world) pinKeepsAll(kubo *lab.Kubo, root cid.Cid) {
	w.t.Helper()
	ctx := w.t.Context()
	refs := func() string {
		out, err := lab.Output(kubo.Command(ctx, "refs", "--recursive", "--unique", "--offline", root.String()))
		w.must(err)
		return out
	}
	before := refs()
	// convert has pinned it by a name of its own.
	_, err := lab.Output(kubo.Command(ctx, "pin", "rm", root.String()))
	w.must(err)
	_, err = lab.Output(kubo.Command(ctx, "pin", "add", root.String()))
	w.must(err)
	_, err = lab.Output(kubo.Command(ctx, "repo", "gc", "--quiet"))
	w.must(err)
	if after := refs(); before != after || !strings.Contains(after, "\n") {
		w.t.Errorf("after garbage collection %d bytes of references are left of %d", len(after), len(before))
	}
	out, err := lab.Output(kubo.Command(ctx, "pin", "ls", "--type=recursive", "--enc=json", root.String()))
	w.must(err)
	var pins struct{ Keys map[string]any }
	w.must(json.Unmarshal([]byte(out), &pins))
	if len(pins.Keys) != 1 {
		w.t.Errorf("pins: %s", out)
	}
}
