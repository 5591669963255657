package images

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// smallFiles is how many the image "files" has below small, and largeSize the size of
// the one below large.
const (
	smallFiles = 12_000
	largeSize  = 256 << 20
)

// makeFiles makes an image to read from: many small files of 1 to 16 KiB in three
// layers, and a large one.
func makeFiles(ctx context.Context, j job) error {
	var layers []Layer
	for part := range 3 {
		layers = append(layers, Layer{CreatedBy: "small files", Tar: Tar(func(t *Tarball) { fillSmall(t, part) })})
	}
	layers = append(layers, Layer{CreatedBy: "a large file", Compression: None, Tar: Tar(func(t *Tarball) {
		content := make([]byte, largeSize)
		_, _ = rand.NewChaCha8([32]byte{2}).Read(content) // never fails
		t.Dir("large", 0o755)
		t.File("large/file", 0o644, string(content))
	})})
	return j.write(ctx, Image{Layers: layers})
}

// fillSmall adds a third of the small files to every folder.
func fillSmall(t *Tarball, part int) {
	random := rand.NewChaCha8([32]byte{byte(part)})
	t.Dir("small", 0o755)
	for d := range 100 {
		t.Dir(fmt.Sprintf("small/%02d", d), 0o755)
	}
	content := make([]byte, 16<<10)
	for i := part; i < smallFiles; i += 3 {
		size := 1<<10 + int(random.Uint64()%(15<<10))
		_, _ = random.Read(content[:size]) // never fails
		t.File(fmt.Sprintf("small/%02d/%d", i%100, i), 0o644, string(content[:size]))
	}
}
