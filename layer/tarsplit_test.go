package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/layer/layertest"
)

// TestShadowed gives back tars whose entries replaced each other.
func TestShadowed(t *testing.T) {
	many := []file{}
	for i := range 6000 {
		many = append(many, text("x", fmt.Sprint("version ", i)))
	}
	for name, tc := range map[string]struct {
		tar  []file
		want bool
	}{
		"none":        {[]file{text("a", "1"), text("b", "2")}, false},
		"same path":   {[]file{text("a", "1"), text("a", "2")}, true},
		"linked":      {[]file{text("a", "1"), hard("b", "a"), text("a", "2")}, false},
		"removed dir": {[]file{text("d/a", "1"), text("d/b", ""), text("d", "2")}, true},
		"large":       {[]file{text("a", strings.Repeat("1", 3<<20)), text("a", "2")}, true},
		"whiteout":    {[]file{text(".wh.a", "content of a whiteout")}, false},
		"sharded":     {many, true},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := convert(t, layertest.Tar(t, tc.tar...))
			if l.Shadowed.Defined() != tc.want {
				t.Errorf("shadowed is %s, want any: %t", l.Shadowed, tc.want)
			}
		})
	}
}

// TestTrailing gives back what follows the end of the archive, and odd padding.
func TestTrailing(t *testing.T) {
	b := layertest.Tar(t, text("a", "123"), text("b", strings.Repeat("x", 700)))
	junk := make([]byte, 300<<10)
	rand.New(rand.NewSource(1)).Read(junk)
	odd := bytes.Clone(b)
	copy(odd[512+3:], "padding that is not zero")
	for name, tarball := range map[string][]byte{
		"no end marker": b[:len(b)-1024],
		"junk":          append(bytes.Clone(b), junk...),
		"blocking":      append(bytes.Clone(b), make([]byte, 9000)...),
		"second tar":    append(bytes.Clone(b), b...),
		"odd padding":   odd,
		"nothing":       {},
	} {
		t.Run(name, func(t *testing.T) { convert(t, tarball) })
	}
}

func needTar(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("tar")
	if err != nil {
		hosttest.Lacking(t, "tar: "+err.Error())
	}
	return p
}

// TestGNUTar gives back what GNU tar writes, sparse files in all its formats included.
func TestGNUTar(t *testing.T) {
	gnutar := needTar(t)
	src := t.TempDir()
	writeSparse(t, filepath.Join(src, "sparse"), 3<<20)
	writeSparse(t, filepath.Join(src, "holes"), 300<<10)
	long := filepath.Join(src, strings.Repeat("d", 200), strings.Repeat("e", 200))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(long, strings.Repeat("f", 200)), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(src, "holes"), filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--format=gnu"}, {"--format=pax"}, {"--format=gnu", "-S"}, {"--format=oldgnu", "-S"},
		{"--format=pax", "-S", "--sparse-version=0.0"}, {"--format=pax", "-S", "--sparse-version=0.1"}, {"--format=pax", "-S", "--sparse-version=1.0"},
		{"--format=gnu", "-b", "1"}, {"--format=pax", "-b", "100"}, {"--format=gnu", "--hard-dereference"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			out, err := exec.Command(gnutar, append(args, "-C", src, "-c", ".")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			l, m := convert(t, out)
			checkContents(t, l, m, src)
		})
	}
}

// TestSparse64M gives back a sparse file of 64 MiB.
func TestSparse64M(t *testing.T) {
	gnutar := needTar(t)
	src := t.TempDir()
	writeSparse(t, filepath.Join(src, "sparse"), 64<<20)
	out, err := exec.Command(gnutar, "--format=pax", "-S", "-C", src, "-c", "sparse").Output()
	if err != nil {
		t.Fatal(err)
	}
	if l, _ := convert(t, out); l.Index.Entries[1].Size != 64<<20 {
		t.Errorf("size %d", l.Index.Entries[1].Size)
	}
}

func writeSparse(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 100 << 10, size - 5000} {
		if _, err := f.WriteAt([]byte(strings.Repeat("data", 500)), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// checkContents compares the files of a layer with those of a directory.
func checkContents(t *testing.T, l *Layer, m *memory, dir string) {
	t.Helper()
	files := 0
	for i := range l.Index.Entries {
		e := &l.Index.Entries[i]
		if !e.Mode.IsRegular() || e.Link >= 0 {
			continue
		}
		files++
		want, err := os.ReadFile(filepath.Join(dir, l.Index.Path(i)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(openFile(context.Background(), m, e.File()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want %d", l.Index.Path(i), len(got), err, len(want))
		}
	}
	if files < 3 {
		t.Errorf("%d files", files)
	}
}

// TestLarge gives back names, paths and times past what old formats hold.
func TestLarge(t *testing.T) {
	deep := strings.Repeat("0123456789/", 500) + "end"
	l, _ := convert(t, layertest.Tar(t, text(deep, "x"), text(strings.Repeat("n", 255), ""), file{Name: "t", Sec: -1 << 40}, file{Name: "u", Sec: 1 << 40}, text("big", strings.Repeat("z", 5<<20+1))))
	seen := 0
	for i := range l.Index.Entries {
		switch e := &l.Index.Entries[i]; {
		case l.Index.Path(i) == deep, e.Name == "t" && e.Mtime == -1<<40, e.Name == "u" && e.Mtime == 1<<40, e.Name == "big" && len(e.Leaves()) == 6*sumSize:
			seen++
		}
	}
	if seen != 4 {
		t.Errorf("%d of 4 entries are as they should", seen)
	}
	if l, _ := convert(t, layertest.Tar(t, text(strings.Repeat("d/", MaxDepth-1)+"x", ""))); len(l.Index.Entries) != MaxDepth+1 {
		t.Errorf("%d entries of depth %d", len(l.Index.Entries), MaxDepth)
	}
}

// splitOf returns a tar-split of payloads of three bytes at these places.
func splitOf(t *testing.T, places ...int32) []byte {
	t.Helper()
	var b bytes.Buffer
	s, err := newSplitWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for range places {
		if err := s.payload(3); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(places); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// putFile puts a file.
func putFile(t testing.TB, m *memory, data []byte) cid.Cid {
	t.Helper()
	p := newPipeline(context.Background(), m, 0)
	w := &contentWriter{send: p.leaf}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), p.wait()); err != nil {
		t.Fatal(err)
	}
	f, err := w.file(nil)
	if err != nil {
		t.Fatal(err)
	}
	return f.Cid
}

// TestWriteTarHostile refuses tar-splits and sources that do not fit.
func TestWriteTarHostile(t *testing.T) {
	ctx := context.Background()
	l, m := convert(t, layertest.Tar(t, dir("d"), text("a", "123"), text("b", "1234"), hard("c", "b")))
	for name, tc := range map[string]struct {
		split []byte
		want  error
	}{
		"not zstd":      {[]byte("nonsense"), ErrTarSplit},
		"other size":    {splitOf(t, 2), ErrTarSplit},
		"a link":        {splitOf(t, 3), ErrTarSplit},
		"a directory":   {splitOf(t, 4), ErrTarSplit},
		"past the end":  {splitOf(t, 5), ErrTarSplit},
		"shadowed":      {splitOf(t, -1), ErrTarSplit},
		"short table":   {splitOf(t, 1)[:20], ErrTarSplit},
		"right, though": {splitOf(t, 1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			bad := *l
			bad.TarSplit = putFile(t, m, tc.split)
			if err := bad.WriteTar(ctx, m, io.Discard); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestStandardFormats gives back what the standard library writes in each format.
func TestStandardFormats(t *testing.T) {
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h := &tar.Header{Name: "a", Size: 3, Mode: 0o600, Format: format}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		convert(t, b.Bytes())
	}
}
