package images

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab/tools"
)

// A toolchain is a recipe: Go of that version, from the module proxy, in one layer on
// top of a C compiler.
type toolchain string

// goRoot is where Go is in its images.
const goRoot = "usr/local/go"

func (v toolchain) make(ctx context.Context, j job) error {
	j.log("getting Go %s", v)
	dir, err := tools.Module(ctx, "golang.org/toolchain@v0.0.1-go"+string(v)+".linux-amd64")
	if err != nil {
		return err
	}
	j.log("writing the layer")
	return j.write(ctx, Image{
		From:   j.from,
		Layers: []Layer{{CreatedBy: "COPY go /usr/local/go", Tar: Tar(func(t *Tarball) { addGo(t, dir) })}},
		Config: ocispec.ImageConfig{
			Cmd: []string{"/bin/bash"},
			Env: []string{"PATH=/" + goRoot + "/bin:" + searchPath, "GOTOOLCHAIN=local"},
		},
	})
}

// addGo adds the toolchain in dir, and the folders that it is in, as all builders of
// images do. A module has no modes: what is run is made executable.
func addGo(t *Tarball, dir string) {
	t.Dir("usr", 0o755)
	t.Dir("usr/local", 0o755)
	t.Fail(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.Join(goRoot, rel)
		if d.IsDir() {
			t.Dir(name, 0o755)
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(rel, "bin/") || strings.HasPrefix(rel, "pkg/tool/") {
			mode = 0o755
		}
		t.File(name, mode, string(content))
		return t.err
	}))
}
