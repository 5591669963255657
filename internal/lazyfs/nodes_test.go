package lazyfs

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// onDisk is a Files and a Reader of files that are all here.
type onDisk struct {
	dir   string
	files map[cid.Cid]ipfs.File
}

func (d onDisk) Claims(c cid.Cid) iter.Seq2[ipfs.File, string] {
	return func(yield func(ipfs.File, string) bool) {
		if f, ok := d.files[c]; ok {
			yield(f, "/")
		}
	}
}

func (d onDisk) Local(f ipfs.File) (*os.File, bool) {
	o, err := os.Open(filepath.Join(d.dir, f.Cid.String()))
	return o, err == nil
}

func (d onDisk) ReadAt(context.Context, ipfs.File, []byte, int64) (int, error) {
	return 0, os.ErrNotExist
}

// TestForget plays the kernel: what it forgets leaves no trace, and what it remembers
// keeps its number.
func TestForget(t *testing.T) {
	disk := onDisk{t.TempDir(), make(map[cid.Cid]ipfs.File)}
	fs := newFileSystem(disk, disk, slog.New(slog.DiscardHandler))
	defer fs.fds.Close()
	const n = 2 * maxFDs
	ids := make(map[cid.Cid]uint64)
	for i := range n {
		data := fmt.Appendf(nil, "file %d", i)
		f, _ := objectstest.NewFile(t, data)
		disk.files[f.Cid] = f
		if err := os.WriteFile(filepath.Join(disk.dir, f.Cid.String()), data, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			ids[f.Cid] = lookup(t, fs, f.Cid)
		}
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: ids[f.Cid]}}
		res, status := fs.Read(nil, in, make([]byte, 100))
		if !status.Ok() {
			t.Fatal(status)
		}
		if got, status := res.Bytes(make([]byte, 100)); !status.Ok() || string(got) != string(data) {
			t.Fatalf("read %q, %v", got, status)
		}
		res.Done()
	}
	if fs.nodes.len() != n || fs.fds.Len() != maxFDs {
		t.Fatalf("%d nodes and %d open files for %d files", fs.nodes.len(), fs.fds.Len(), n)
	}
	for c, id := range ids {
		fs.Forget(id, 1)
		if got := lookup(t, fs, c); got != id {
			t.Fatalf("node %d became %d while the kernel knew it", id, got)
		}
		fs.Forget(id, 2)
		fs.Forget(id, 1) // once too often
		var out fuse.AttrOut
		if status := fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: id}}, &out); status.Ok() {
			t.Fatalf("node %d is remembered", id)
		}
	}
	if fs.nodes.len() != 0 || fs.fds.Len() != 0 {
		t.Fatalf("%d nodes and %d open files are left", fs.nodes.len(), fs.fds.Len())
	}
}

func lookup(t *testing.T, fs *fileSystem, c cid.Cid) uint64 {
	t.Helper()
	shard, ok := shardNode(objects.Shard(c.String()))
	if !ok {
		t.Fatalf("%s has no shard", c)
	}
	var out fuse.EntryOut
	if status := fs.Lookup(nil, &fuse.InHeader{NodeId: shard}, c.String(), &out); !status.Ok() {
		t.Fatal(status)
	}
	return out.NodeId
}
