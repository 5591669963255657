package layer

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/hinshun/ipcs/layer/layertest"
)

// writeLarge writes a layer of so many files, where more than ten entries, the root among
// them, make one large.
func writeLarge(t *testing.T, files int, large func() error) error {
	t.Helper()
	var tar []file
	for i := range files {
		tar = append(tar, text(fmt.Sprint(i), ""))
	}
	w := newWriter(bytes.NewReader(layertest.Tar(t, tar...)), WriteOptions{Large: large})
	w.largeAt = 10
	_, err := w.write(t.Context(), nowhere{})
	return err
}

func TestLargeLayer(t *testing.T) {
	for files, want := range map[int]int{9: 0, 10: 1, 100: 1} {
		calls := 0
		if err := writeLarge(t, files, func() error { calls++; return nil }); err != nil {
			t.Fatal(err)
		}
		if calls != want {
			t.Errorf("%d files: Large was called %d times, want %d", files, calls, want)
		}
	}
	refused := errors.New("not now")
	if err := writeLarge(t, 10, func() error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Write: %v, want %v", err, refused)
	}
}
