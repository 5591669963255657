package lazyfs_test

import (
	"bytes"
	"errors"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
	"github.com/hinshun/ipcs/ipfs"
)

// known are the files of a test.
type known struct {
	mu    sync.Mutex
	files map[cid.Cid]ipfs.File
}

func (k *known) Claims(c cid.Cid) iter.Seq2[ipfs.File, string] {
	return func(yield func(ipfs.File, string) bool) {
		k.mu.Lock()
		f, ok := k.files[c]
		k.mu.Unlock()
		if ok {
			yield(f, "/path/of/"+c.String()[50:])
		}
	}
}

func (k *known) add(name cid.Cid, f ipfs.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files[name] = f
}

// fixture is a mounted file system over an empty store and a source.
type fixture struct {
	dir     string
	known   *known
	source  *fetchtest.Source
	store   *objects.Store
	fetcher *fetch.Fetcher
	socket  string // of the relay
	server  *lazyfs.Server
	log     *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func mount(t testing.TB, storeDir string, timeout time.Duration) *fixture {
	t.Helper()
	fx := &fixture{dir: t.TempDir(), known: &known{files: make(map[cid.Cid]ipfs.File)}, source: fetchtest.New(), log: &logBuffer{}}
	logger := slog.New(slog.NewTextHandler(fx.log, nil))
	var err error
	if fx.store, err = objects.Open(storeDir, objects.Options{Logger: logger}); err != nil {
		t.Fatal(err)
	}
	fx.fetcher = fetch.New(fx.store, fx.source, fetch.Options{Timeout: timeout, Logger: logger})
	fx.socket = relaytest.Start(t, fx.dir, relaytest.Options{Logger: logger})
	fx.serve(t)
	relaytest.NoPoll(t, fx.dir)
	t.Cleanup(func() {
		if err := errors.Join(fx.server.Unmount(), fx.fetcher.Close(), fx.store.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(fx.log.String())
		}
	})
	return fx
}

// serve begins to serve the file system, in the place of who does it now.
func (fx *fixture) serve(t testing.TB) {
	t.Helper()
	client, err := relay.Dial(fx.socket)
	if err != nil {
		t.Fatal(err)
	}
	fx.server = lazyfs.Serve(client, fx.known, fx.fetcher, lazyfs.Options{Logger: slog.New(slog.NewTextHandler(fx.log, nil))})
}

// add makes a file known, and its leaves available at the source.
func (fx *fixture) add(t testing.TB, data []byte) (f ipfs.File, path string) {
	t.Helper()
	f, leaves := objectstest.NewFile(t, data)
	fx.known.add(f.Cid, f)
	fx.source.Add(leaves...)
	return f, filepath.Join(fx.dir, objects.Path(f.Cid))
}

func TestReadFiles(t *testing.T) {
	fx := mount(t, t.TempDir(), time.Minute)
	sparse := make([]byte, 12*ipfs.LeafSize+1)
	copy(sparse[5*ipfs.LeafSize:], "in a hole")
	for _, data := range [][]byte{nil, []byte("small"), objectstest.Random(1, ipfs.LeafSize+1), objectstest.Random(2, 20*ipfs.LeafSize+17), sparse} {
		f, path := fx.add(t, data)
		info, err := os.Stat(path)
		if err != nil || info.Size() != f.Size || info.Mode() != 0o444 {
			t.Fatalf("%d bytes: stat says %v, %v", len(data), info, err)
		}
		if _, times, _ := fx.source.Totals(); fx.source.Asked(f.Leaf(0)) != 0 {
			t.Fatalf("stat asked the source, %d times in all", times)
		}
		for range 2 { // lazily, and then from the object
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes: read %d, %v", len(data), len(got), err)
			}
			if err := fx.fetcher.Ensure(t.Context(), f); err != nil || !fx.store.HasFile(f) {
				t.Fatal(err)
			}
			dropCache(t, path)
		}
	}
	if s := fx.server.Stats(); s.Errors != 0 || s.Reads == 0 || s.Nodes != 5 {
		t.Errorf("Stats() = %+v", s)
	}
}

// dropCache makes the kernel forget what it has of a file, so that it asks again.
func dropCache(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, 4 /* DONTNEED */, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
}

func TestNames(t *testing.T) {
	fx := mount(t, t.TempDir(), time.Minute)
	f, path := fx.add(t, []byte("there"))
	name := f.Cid.String()
	unknown, _ := objectstest.NewFile(t, []byte("not known"))
	lie := ipfs.File{Cid: unknown.Cid} // says that it is empty
	all := filepath.Join(fx.dir, objects.Hidden)
	for p, want := range map[string]error{
		path:                                    nil,
		filepath.Join(all, objects.Shard(name)): nil,
		filepath.Join(fx.dir, objects.Path(unknown.Cid)):                      os.ErrNotExist,
		filepath.Join(all, otherShard(objects.Shard(name)), name):             os.ErrNotExist,
		filepath.Join(all, objects.Shard(name), strings.ToUpper(name)):        os.ErrNotExist,
		filepath.Join(all, objects.Shard(name), "x"):                          os.ErrNotExist,
		filepath.Join(all, objects.Shard(name), "zz"+objects.Shard(name)+"z"): os.ErrNotExist,
		filepath.Join(all, "a1"):                                              os.ErrNotExist,
		filepath.Join(fx.dir, objects.Shard(name)):                            os.ErrNotExist,
		filepath.Join(all, "abc"):                                             os.ErrNotExist,
	} {
		if _, err := os.Stat(p); !errors.Is(err, want) {
			t.Errorf("stat %s: %v, want %v", p, err, want)
		}
	}
	if _, err := os.ReadDir(all); !errors.Is(err, syscall.EACCES) {
		t.Errorf("readdir: %v", err)
	}
	// An overlay reads it that has it as an ordinary layer.
	if names, err := os.ReadDir(fx.dir); err != nil || len(names) > 0 {
		t.Errorf("readdir of the root: %v, %v", names, err)
	}
	if err := os.WriteFile(path, nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write: %v", err)
	}
	fx.known.add(lie.Cid, lie)
	if _, err := os.Stat(filepath.Join(fx.dir, objects.Path(lie.Cid))); !errors.Is(err, syscall.EIO) {
		t.Errorf("stat of a file that claims to be empty: %v", err)
	}
	fx.known.add(unknown.Cid, unknown) // what was absent may come to be known
	if _, err := os.Stat(filepath.Join(fx.dir, objects.Path(unknown.Cid))); err != nil {
		t.Error(err)
	}
}

func otherShard(s string) string {
	if s == "aa" {
		return "bb"
	}
	return "aa"
}

func TestConcurrentReadersFetchOnce(t *testing.T) {
	fx := mount(t, t.TempDir(), time.Minute)
	data := objectstest.Random(1, 40*ipfs.LeafSize)
	_, path := fx.add(t, data)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if blocks, times, _ := fx.source.Totals(); blocks != 40 || times != 40 {
		t.Errorf("%d leaves were asked for %d times", blocks, times)
	}
}
