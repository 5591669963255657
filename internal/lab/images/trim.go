package images

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path"
	"strings"
)

// A trim is a recipe: the image below, layer by layer, without what is at these paths, which
// are patterns of path.Match, and below them.
type trim []string

func (without trim) make(ctx context.Context, j job) error {
	img := Image{Config: j.from.Config.Config}
	for _, l := range j.from.Manifest.Layers {
		img.Layers = append(img.Layers, Layer{
			CreatedBy: "COPY some of it /",
			Tar: func(w io.Writer) error {
				return j.from.read(l, func(tar io.Reader) error { return without.copy(w, tar) })
			},
		})
	}
	return j.write(ctx, img)
}

// copy copies a tar without them, and without hard links to them.
func (without trim) copy(w io.Writer, r io.Reader) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		if without.has(h.Name) || h.Typeflag == tar.TypeLink && without.has(h.Linkname) {
			continue
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

// has says whether a path, or a folder that it is in, is one of them.
func (without trim) has(name string) bool {
	for at := strings.TrimPrefix(path.Clean("/"+name), "/"); at != "" && at != "."; at = path.Dir(at) {
		for _, pattern := range without {
			if ok, _ := path.Match(pattern, at); ok { // none is malformed
				return true
			}
		}
	}
	return false
}

// unused are parts of Debian and Python, most of what is in the image, that no test has a use for.
var unused = trim{
	"usr/lib/*/gconv", "usr/lib/*/libperl.so.*", "usr/lib/*/perl", "usr/lib/*/perl-base", "usr/lib/apt",
	"usr/lib/python3/dist-packages", "usr/lib/python3.*/distutils", "usr/lib/python3.*/lib2to3", "usr/lib/python3.*/pydoc_data",
	"usr/lib/python3.*/test", "usr/lib/python3.*/unittest",
	"usr/share/locale", "usr/share/man", "usr/share/perl", "usr/share/zoneinfo",
	"var/cache", "var/lib/apt", "var/lib/dpkg/info",
}
