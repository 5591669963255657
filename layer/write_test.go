package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// list writes an index as one word a line: what tests compare.
func list(x *Index) string {
	var b strings.Builder
	for i := 1; i < len(x.Entries); i++ {
		e := &x.Entries[i]
		b.WriteString(x.Path(i))
		switch {
		case e.Whiteout:
			b.WriteString(" whiteout")
		case e.Link >= 0:
			fmt.Fprintf(&b, " = %s", x.Path(int(e.Link)))
		case e.Mode&os.ModeSymlink != 0:
			fmt.Fprintf(&b, " -> %s", e.Target)
		default:
			fmt.Fprintf(&b, " %v", e.Mode)
		}
		b.WriteString(marks(mark{e.Implied, " implied"}, mark{e.Opaque, " opaque"}, mark{e.KeepXattrs, " keep"}))
		b.WriteByte('\n')
	}
	return b.String()
}

// TestApply says what containerd's extraction rules make of a tar.
func TestApply(t *testing.T) {
	for name, tc := range map[string]struct {
		tar  []file
		want string
	}{
		"empty":                   {nil, ""},
		"sorted":                  {[]file{text("b", ""), text("a-b", ""), dir("a"), text("a/x", "")}, "a drwxr-xr-x\na/x -rw-r--r--\na-b -rw-r--r--\nb -rw-r--r--\n"},
		"root":                    {[]file{dir("./"), text("./x", "")}, "x -rw-r--r--\n"},
		"root as /":               {[]file{dir("/"), text("x", "")}, "x -rw-r--r--\n"},
		"implied":                 {[]file{text("a/b/c", "")}, "a drwxr-xr-x implied\na/b drwxr-xr-x implied\na/b/c -rw-r--r--\n"},
		"keep":                    {[]file{text("a/c", ""), dir("a")}, "a drwxr-xr-x keep\na/c -rw-r--r--\n"},
		"last wins":               {[]file{text("a", "1"), sym("a", "x"), text("a", "2")}, "a -rw-r--r--\n"},
		"dir to file":             {[]file{text("a/b", ""), text("a", "")}, "a -rw-r--r--\n"},
		"file to dir":             {[]file{text("a", ""), dir("a"), text("a/b", "")}, "a drwxr-xr-x\na/b -rw-r--r--\n"},
		"dir on dir":              {[]file{dir("a"), text("a/b", ""), {Name: "a", Type: tar.TypeDir, Mode: 0o700}}, "a drwx------\na/b -rw-r--r--\n"},
		"hard link":               {[]file{text("b", "x"), hard("a", "b")}, "a -rw-r--r--\nb = a\n"},
		"link to symlink itself":  {[]file{text("f", ""), sym("s", "f"), hard("t", "s")}, "f -rw-r--r--\ns -> f\nt = s\n"},
		"link keeps removed":      {[]file{text("a", "1"), hard("b", "a"), text("a", "2")}, "a -rw-r--r--\nb -rw-r--r--\n"},
		"link through symlink":    {[]file{dir("d"), text("d/f", ""), sym("s", "d"), hard("g", "s/f")}, "d drwxr-xr-x\nd/f -rw-r--r--\ng = d/f\ns -> d\n"},
		"absolute link target":    {[]file{text("a", ""), hard("b", "/a")}, "a -rw-r--r--\nb = a\n"},
		"through symlink":         {[]file{dir("usr"), dir("usr/lib"), sym("lib", "usr/lib"), text("lib/x", "")}, "lib -> usr/lib\nusr drwxr-xr-x\nusr/lib drwxr-xr-x\nusr/lib/x -rw-r--r--\n"},
		"symlink out of the root": {[]file{sym("s", "../../../etc"), text("s/x", "")}, "etc drwxr-xr-x implied\netc/x -rw-r--r--\ns -> ../../../etc\n"},
		"absolute symlink":        {[]file{sym("s", "/etc"), text("s/x", "")}, "etc drwxr-xr-x implied\netc/x -rw-r--r--\ns -> /etc\n"},
		"dangling symlink":        {[]file{sym("s", "no/such"), text("s/x", "")}, "no drwxr-xr-x implied\nno/such drwxr-xr-x implied\nno/such/x -rw-r--r--\ns -> no/such\n"},
		"symlink chain":           {[]file{sym("a", "b"), sym("b", "c/d"), sym("c", "/e"), text("a/x", "")}, "a -> b\nb -> c/d\nc -> /e\ne drwxr-xr-x implied\ne/d drwxr-xr-x implied\ne/d/x -rw-r--r--\n"},
		"dir replaces symlink":    {[]file{dir("d"), sym("s", "d"), dir("s"), text("s/x", "")}, "d drwxr-xr-x\ns drwxr-xr-x\ns/x -rw-r--r--\n"},
		"dotted":                  {[]file{text("a/../b/./c", "")}, "b drwxr-xr-x implied\nb/c -rw-r--r--\n"},
		"whiteout":                {[]file{text("a/.wh.b", "")}, "a drwxr-xr-x implied\na/b whiteout\n"},
		"whiteout with content":   {[]file{text(".wh.b", "some bytes"), text("c", "more")}, "b whiteout\nc -rw-r--r--\n"},
		"whiteout replaced":       {[]file{text(".wh.b", ""), dir("b"), text("b/c", "")}, "b drwxr-xr-x\nb/c -rw-r--r--\n"},
		"opaque":                  {[]file{dir("a"), text("a/b", ""), text("a/.wh..wh..opq", "")}, "a drwxr-xr-x opaque\na/b -rw-r--r--\n"},
		"opaque implied":          {[]file{text("a/.wh..wh..opq", "")}, "a drwxr-xr-x implied opaque\n"},
		"whiteout of whiteout":    {[]file{text(".wh..wh.x", "")}, ".wh.x whiteout\n"},
		"whiteout directory":      {[]file{text(".wh.d/x", "")}, ".wh.d drwxr-xr-x implied\n.wh.d/x -rw-r--r--\n"},
		"linked whiteout":         {[]file{text(".wh.a", ""), hard("b", "a")}, "a whiteout\nb whiteout\n"},
		"global header":           {[]file{{Name: "pax_global_header", Type: tar.TypeXGlobalHeader}, text("a", "")}, "a -rw-r--r--\n"},
		"types":                   {[]file{device("c", 5), {Name: "b", Type: tar.TypeBlock, Major: 7}, {Name: "p", Type: tar.TypeFifo}}, "b Drw-r--r--\nc Dcrw-r--r--\np prw-r--r--\n"},
		"odd names":               {[]file{text("a\nb", ""), text("\\", ""), text(" ", ""), text("\xff\xfe", "")}, "  -rw-r--r--\n\\ -rw-r--r--\na\nb -rw-r--r--\n\xff\xfe -rw-r--r--\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := list(index(t, tc.tar...)); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// TestRefused names the error of each tar that is refused.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		tar  []file
		want error
	}{
		"leaves the root":        {[]file{text("../x", "")}, ErrPath},
		"leaves in the middle":   {[]file{text("a/../../x", "")}, ErrPath},
		"absolute":               {[]file{text("/etc/passwd", "")}, ErrPath},
		"link leaves the root":   {[]file{text("a", ""), hard("b", "../a")}, ErrPath},
		"link to nothing":        {[]file{hard("b", "a")}, ErrHardlink},
		"link to a later entry":  {[]file{hard("b", "a"), text("a", "")}, ErrHardlink},
		"link to itself":         {[]file{text("a", ""), hard("a", "a")}, ErrHardlink},
		"link to a directory":    {[]file{dir("a"), hard("b", "a")}, ErrHardlink},
		"whiteout of own entry":  {[]file{text("x", ""), text(".wh.x", "")}, ErrTar},
		"whiteout of nothing":    {[]file{text("a/.wh.", "")}, ErrTar},
		"whiteout of parent":     {[]file{text("a/.wh...", "")}, ErrTar},
		"below a file":           {[]file{text("a", ""), text("a/b", "")}, ErrTar},
		"below a whiteout":       {[]file{text(".wh.a", ""), text("a/b", "")}, ErrTar},
		"symlink loop":           {[]file{sym("a", "b"), sym("b", "a"), text("a/x", "")}, ErrTar},
		"removed directory":      {[]file{dir("a"), dir("a/b"), text("a", "")}, ErrTar},
		"unknown type":           {[]file{{Name: "a", Type: '7'}}, ErrTar},
		"empty symlink":          {[]file{sym("a", "")}, ErrTar},
		"long name":              {[]file{text(strings.Repeat("n", 256), "")}, ErrTooLarge},
		"long implied name":      {[]file{text(strings.Repeat("n", 256)+"/x", "")}, ErrTooLarge},
		"long target":            {[]file{sym("a", strings.Repeat("t", 4096))}, ErrTooLarge},
		"deep":                   {[]file{text(strings.Repeat("d/", MaxDepth)+"x", "")}, ErrTooLarge},
		"user.overlay":           {[]file{{Name: "a", Xattrs: map[string]string{"user.overlay.opaque": "y"}}}, ErrXattr},
		"user.overlay directory": {[]file{{Name: "a", Type: tar.TypeDir, Xattrs: map[string]string{"user.overlay.redirect": "/x"}}}, ErrXattr},
		"large attribute":        {[]file{{Name: "a", Xattrs: map[string]string{"user.a": strings.Repeat("v", MaxXattrValue+1)}}}, ErrTooLarge},
		"nameless attribute":     {[]file{{Name: "a", Xattrs: map[string]string{"user.": "v"}}}, ErrTar},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Write(context.Background(), newMemory(), bytes.NewReader(layertest.Tar(t, tc.tar...)), WriteOptions{})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestDeviceNumbers(t *testing.T) {
	b := layertest.Tar(t, device("a", 1))
	// Base-256 -1 in the field of the major number.
	copy(b[329:337], bytes.Repeat([]byte{0xff}, 8))
	fixChecksum(b)
	if _, err := Write(context.Background(), newMemory(), bytes.NewReader(b), WriteOptions{}); !errors.Is(err, ErrTar) {
		t.Errorf("got %v, want %v", err, ErrTar)
	}
}

// fixChecksum sets the checksum of the first header.
func fixChecksum(b []byte) {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestTruncated(t *testing.T) {
	whole := layertest.Tar(t, text("a", strings.Repeat("x", 3000)), text("b", "y"))
	for _, n := range []int{100, 512, 600, 3500, 4000, 4700} {
		_, err := Write(context.Background(), newMemory(), bytes.NewReader(whole[:n]), WriteOptions{})
		if n != 512+3000 && !errors.Is(err, ErrTar) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

// TestStreamError keeps a stream that failed apart from a tar that is wrong.
func TestStreamError(t *testing.T) {
	whole := layertest.Tar(t, text("a", strings.Repeat("x", 3000)))
	broken := errors.New("cable cut")
	_, err := Write(context.Background(), newMemory(), io.MultiReader(bytes.NewReader(whole[:1000]), iotest.ErrReader(broken)), WriteOptions{})
	if !errors.Is(err, broken) || errors.Is(err, ErrTar) {
		t.Errorf("got %v", err)
	}
}

var errFull = errors.New("disk full")

type putFunc func() error

func (f putFunc) Put(context.Context, ...ipfs.Block) error { return f() }

func TestPutError(t *testing.T) {
	for _, body := range []string{"x", strings.Repeat("x", 40<<20)} {
		_, err := Write(context.Background(), putFunc(func() error { return errFull }), bytes.NewReader(layertest.Tar(t, text("a", body))), WriteOptions{})
		if !errors.Is(err, errFull) {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Write(ctx, newMemory(), bytes.NewReader(layertest.Tar(t, text("a", strings.Repeat("x", 40<<20)))), WriteOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// meter counts what Write reads and has not put yet.
type meter struct{ read, put, most atomic.Int64 }

func (m *meter) Put(_ context.Context, blocks ...ipfs.Block) error {
	n := int64(0)
	for _, b := range blocks {
		n += int64(len(b.Data))
	}
	m.most.Store(max(m.most.Load(), m.read.Load()-m.put.Load()))
	m.put.Add(n)
	return nil
}

// TestWriteBounded wants Write to hold no more than a few leaves a core.
func TestWriteBounded(t *testing.T) {
	var m meter
	const size = 200 << 20
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "a", Size: size}); err != nil {
		t.Fatal(err)
	}
	content := io.LimitReader(rand.NewChaCha8([32]byte{}), size) // no leaf is like another
	_, err := Write(context.Background(), &m, io.MultiReader(&header, content), WriteOptions{Progress: func(n int64) { m.read.Add(n) }})
	if err != nil {
		t.Fatal(err)
	}
	if limit := int64(runtime.GOMAXPROCS(0))*(16<<20) + 8<<20; m.most.Load() > limit {
		t.Errorf("%d MiB were in flight", m.most.Load()>>20)
	}
}

func TestResult(t *testing.T) {
	b := layertest.Tar(t, dir("d"), text("d/a", "1"), hard("d/b", "d/a"), text("d/c", ""))
	var progress int64
	r, err := Write(context.Background(), newMemory(), bytes.NewReader(b), WriteOptions{Progress: func(n int64) { progress += n }})
	if err != nil {
		t.Fatal(err)
	}
	if r.Files != 2 || r.Entries != 5 || r.Bytes != int64(len(b)) || progress != r.Bytes || r.DiffID != digest.FromBytes(b) {
		t.Errorf("%+v, progress %d", r, progress)
	}
}
