//go:build linux

package snapshotter

import (
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/objects"
)

// Mounts says how ipcs layers are mounted.
type Mounts struct {
	Image ImageMode
	Data  DataMode
}

// An ImageMode is how the kernel gets at the EROFS image of a chain.
type ImageMode string

// The ways, the best first.
const (
	ImageAuto ImageMode = ""
	ImageFile ImageMode = "file" // EROFS reads the file itself (Linux 6.12)
	ImageLoop ImageMode = "loop" // through a loop device
	// ImageFuse has a process of ours serve it: without EROFS, and in a user namespace.
	ImageFuse ImageMode = "fuse"
)

// UnmarshalText parses the name of a way, or "auto".
func (m *ImageMode) UnmarshalText(text []byte) (err error) {
	*m, err = parseMode(string(text), ImageFile, ImageLoop, ImageFuse)
	return err
}

// A DataMode is how overlays get from the metadata of a chain to the data of its files.
type DataMode string

// The ways, the best first. With all but the last, what is on disk is read with no FUSE request.
const (
	DataAuto DataMode = ""
	// DataOnly has the objects in data-only layers, with no option (Linux 6.16).
	DataOnly DataMode = "data-only"
	// DataMetacopy has them there too, with metacopy=on (Linux 6.5).
	DataMetacopy DataMode = "metacopy"
	// DataHidden has them in ordinary layers at the bottom, with metacopy=on. The one name
	// that those have is hidden by a whiteout on top.
	DataHidden DataMode = "hidden"
	// DataServed has the process that serves the image (ImageFuse) read them, for user
	// namespaces before Linux 6.16, in which overlays have no metacopy.
	DataServed DataMode = "served"
)

// UnmarshalText parses the name of a way, or "auto".
func (m *DataMode) UnmarshalText(text []byte) (err error) {
	*m, err = parseMode(string(text), DataOnly, DataMetacopy, DataHidden, DataServed)
	return err
}

func parseMode[M ~string](name string, modes ...M) (M, error) {
	if name == "" || name == "auto" {
		return "", nil
	}
	if !slices.Contains(modes, M(name)) {
		return "", fmt.Errorf("%q is none of auto and %q", name, modes)
	}
	return M(name), nil
}

// namesHidden says whether redirects name the folder that all objects are below.
func (m DataMode) namesHidden() bool { return m == DataHidden || m == DataServed }

// dataLayers are the layers that have the objects below these folders. As ordinary layers they
// show one name alone, which can be hidden; data-only layers begin below it, which saves the
// kernel a step at the first open of each file.
func dataLayers(mode DataMode, dirs ...string) []string {
	var layers []string
	for _, dir := range dirs {
		if !mode.namesHidden() {
			dir = filepath.Join(dir, objects.Hidden)
		}
		layers = append(layers, dir)
	}
	return layers
}

// cidBase32 is that of the strings of CIDs.
var cidBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// redirect is where an object is in them, with a slash in front. An image may have a million
// files: by way of Cid.String this took a fifth of the time to mount.
func redirect(mode DataMode, c cid.Cid) string {
	var raw, text, path [128]byte
	name := cidBase32.AppendEncode(append(text[:0], 'b'), append(raw[:0], c.KeyString()...))
	p := append(path[:0], '/')
	if mode.namesHidden() {
		p = append(p, objects.Hidden+"/"...)
	}
	p = append(p, name[len(name)-3:len(name)-1]...) // objects.Shard
	p = append(p, '/')
	return string(append(p, name...))
}

// makeHide makes the layer that hides the objects of DataHidden.
func makeHide(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// It is on top, and a view shows its mode.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	whiteout := filepath.Join(dir, objects.Hidden)
	if err := unix.Mknod(whiteout, unix.S_IFCHR, 0); err != nil && !errors.Is(err, os.ErrExist) {
		return &os.PathError{Op: "mknod", Path: whiteout, Err: err}
	}
	return nil
}
