package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
)

// Touched finds the directories whose mtime nobody states. A layer that changes
// something in a directory changes its mtime too, to the time at which the layer was
// unpacked, unless the layer has an entry for the directory itself.
type Touched map[string]bool

// Layer reads the tar of the next layer; the lowest comes first.
func (t Touched) Layer(r io.Reader) error {
	stated, touched := map[string]bool{}, map[string]bool{".": true}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		name := path.Clean("/" + h.Name)[1:]
		if name == "" {
			name = "."
		}
		if h.Typeflag == tar.TypeDir {
			stated[name] = true
		}
		for name != "." {
			name = path.Dir(name)
			touched[name] = true
		}
	}
	for dir := range touched {
		t[dir] = true
	}
	for dir := range stated {
		delete(t, dir)
	}
	return nil
}

// Has says whether a directory may have any mtime.
func (t Touched) Has(path string) bool { return t[path] }
