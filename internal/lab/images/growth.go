package images

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// A spread is a recipe: so many files, the same ones in however many layers, the lowest
// of which is the image below.
type spread struct{ files, layers int }

func (s spread) make(ctx context.Context, j job) error {
	img := Image{From: j.from, Config: config("true")}
	for layer := range s.layers - 1 {
		img.Layers = append(img.Layers, Layer{
			CreatedBy: "COPY some files /files",
			Tar: Tar(func(t *Tarball) {
				t.Dir("files", 0o755)
				for d := range 100 {
					t.Dir(fmt.Sprintf("files/%02d", d), 0o755)
				}
				for i := layer; i < s.files; i += s.layers - 1 {
					t.File(fmt.Sprintf("files/%02d/%d", i%100, i), 0o644, content(i, 1<<10, 8<<10))
				}
			}),
		})
	}
	return j.write(ctx, img)
}

// A crowd is a recipe: so many small files, a thousand per folder, in one layer on top
// of the image below.
type crowd int

func (files crowd) make(ctx context.Context, j job) error {
	return j.write(ctx, Image{
		From: j.from,
		Layers: []Layer{{CreatedBy: "COPY many files /files", Tar: Tar(func(t *Tarball) {
			t.Dir("files", 0o755)
			for i := range int(files) {
				if i%1000 == 0 {
					t.Dir(fmt.Sprintf("files/%d", i/1000), 0o755)
				}
				t.File(fmt.Sprintf("files/%d/%d", i/1000, i), 0o644, content(i, 100, 1<<10))
			}
		})}},
		Config: config("true"),
	})
}

// words fill files with what compresses.
const words = "the quick brown fox jumps over the lazy dog and goes on to the next hill "

// content is that of file i, of minSize to maxSize bytes. The first half is noise and
// the second words, so that it compresses to a little more than half, as programs do,
// and no two are the same.
func content(i, minSize, maxSize int) string {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(i))
	random := rand.NewChaCha8(seed)
	b := make([]byte, minSize+int(random.Uint64()%uint64(maxSize-minSize+1)))
	n := len(b) / 2
	_, _ = random.Read(b[:n]) // never fails
	for n < len(b) {
		n += copy(b[n:], words)
	}
	return string(b)
}
