//go:build linux

package snapshotter_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/hinshun/ipcs/ipfs"
)

const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// stack is three layers that touch each other in every way that layers can.
func stack() [][]entry {
	large := strings.Repeat("0123456789abcdef", 1<<17) + "end" // three leaves
	return [][]entry{{
		dir("etc", 0o755), file("etc/passwd", "root\n", 0o644), file("etc/shadow", "x", 0o600),
		dir("bin", 0o755), file("bin/su", "binary", 0o4755), file("bin/ping", "p", 0o755).with("security.capability", capability),
		special(tar.TypeSymlink, "bin/sh", "dash"), special(tar.TypeLink, "bin/su2", "bin/su"), special(tar.TypeLink, "bin/su3", "bin/su"),
		dir("dev", 0o755), special(tar.TypeChar, "dev/null", ""), special(tar.TypeBlock, "dev/sda", ""), special(tar.TypeFifo, "dev/fifo", ""),
		dir("opt", 0o1777).with("user.kind", "opt"), dir("opt/a", 0o700), file("opt/a/one", "1", 0o644), file("opt/a/two", "2", 0o644),
		dir("opt/b", 0o750), file("opt/b/gone", "b", 0o644), dir("opt/c", 0o755), file("opt/c/hidden", "c", 0o644),
		dir("var", 0o755), file("var/large", large, 0o644), file("var/empty", "", 0o644), file("var/same", "root\n", 0o640),
		dir("dir-then-file", 0o755), file("dir-then-file/x", "x", 0o644), file("file-then-dir", "f", 0o644),
		file("back", "first", 0o644), dir("inherit", 0o2710).with("user.kind", "inherited"), file("inherit/a", "a", 0o600),
	}, {
		file("etc/passwd", "root\nuser\n", 0o644), file("opt/b/.wh.gone", "", 0), file("opt/.wh.a", "", 0),
		dir("opt/c", 0o711), file("opt/c/.wh..wh..opq", "", 0), file("opt/c/new", "n", 0o644),
		file("dir-then-file", "now a file", 0o644), dir("file-then-dir", 0o701), file("file-then-dir/y", "y", 0o644),
		file(".wh.back", "", 0), file("inherit/b", "b", 0o644), file("only/implied/path", "p", 0o644),
		dir("second", 0o755), file("second/large", large[:2<<20], 0o600),
	}, {
		dir("opt/a", 0o755), file("opt/a/three", "3", 0o644), file("back", "again", 0o444), file("inherit/c", "c", 0o644),
		file("etc/.wh.shadow", "", 0), file("second/added", "s", 0o644), file("third", "3", 0o644), special(tar.TypeSymlink, "bin/sh", "bash"),
	}}
}

// build stacks layers on both snapshotters: kinds says for each whether it is an ipcs
// layer ('i') or an ordinary one ('o').
func (l *lab) build(kinds string, layers [][]entry) (ipcs, plain chain) {
	l.t.Helper()
	return l.buildWith(l.convert, kinds, layers)
}

// buildWith is build with ipcs layers that convert makes.
func (l *lab) buildWith(convert func(tarball []byte) ipfs.Block, kinds string, layers [][]entry) (ipcs, plain chain) {
	l.t.Helper()
	for i, entries := range layers {
		b := tarOf(l.t, entries)
		plain = l.extract(l.overlay, plain, b)
		if kinds[i] == 'i' {
			ipcs = l.pull(ipcs, convert(b))
		} else {
			ipcs = l.extract(l.Snapshotter, ipcs, b)
		}
	}
	return ipcs, plain
}

// mixes lists all kinds of n layers with at least one ipcs layer.
func mixes(n int) []string {
	var list []string
	for bits := range 1 << n {
		kinds := strings.Repeat("o", n)
		for i := range n {
			if bits>>i&1 == 1 {
				kinds = kinds[:i] + "i" + kinds[i+1:]
			}
		}
		if bits != 0 {
			list = append(list, kinds)
		}
	}
	return list
}

// TestMixed compares chains of every mix with the same layers on the overlay snapshotter:
// as they are, after a container worked in them, and after its changes were committed.
func TestMixed(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for _, kinds := range mixes(n) {
			t.Run(kinds, func(t *testing.T) {
				t.Parallel() // most of the time goes into syncing metadata
				l := newLab(t)
				ipcs, plain := l.build(kinds, stack()[:n])
				compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
				l.work(n, &ipcs, &plain)
				compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
				l.work(n, &ipcs, &plain)
				above := tarOf(t, []entry{file("inherit/above", "above", 0o644), file("only/implied/path", "other", 0o644)})
				ipcs, plain = l.extract(l.Snapshotter, ipcs, above), l.extract(l.overlay, plain, above)
				compareTrees(t, l.view(l.Snapshotter, ipcs.parent), l.view(l.overlay, plain.parent))
			})
		}
	}
}

// work changes a container of each chain in the same way, compares, and commits both.
func (l *lab) work(n int, ipcs, plain *chain) {
	l.t.Helper()
	ikey, ipath := l.active(l.Snapshotter, ipcs.parent)
	pkey, ppath := l.active(l.overlay, plain.parent)
	compareTrees(l.t, ipath, ppath)
	for _, path := range []string{ipath, ppath} {
		if err := change(path); err != nil {
			l.t.Fatal(err)
		}
	}
	compareTrees(l.t, ipath, ppath)
	opt := snapshots.WithLabels(map[string]string{"kind": "commit"})
	*ipcs = l.commit(l.Snapshotter, ikey, ipcs.id, opt)
	*plain = l.commit(l.overlay, pkey, plain.id, opt)
}

// change does to a root what containers do. Times are set, so that they can be compared.
func change(root string) error {
	script := `set -e
cd "$1"
chmod 600 bin/ping; chmod g+w opt; chown 7:8 bin/su
echo more >> etc/passwd
mv var/large var/moved-$2; mv bin/sh bin/shell; mv bin/shell bin/sh
cp -a var/moved-$2 var/large; dd if=/dev/zero of=var/large bs=1 count=3 seek=5 conv=notrunc status=none
ln bin/su bin/su-link-$2
rm -rf opt/b; mkdir opt/b; echo new > opt/b/recreated
mv opt/c opt/moved-c-$2; mkdir opt/c; chmod 700 opt/c; echo $2 > opt/c/again
rm -f var/empty; : > var/empty
truncate -s 3 var/same
rm -f back; mkdir back; rmdir back; echo back > back
find . ! -type d -newermt 2020-01-01 -exec touch -h -d '2019-03-04 05:06:07' {} +
`
	n, err := os.ReadDir(filepath.Join(root, "var"))
	if err != nil {
		return err
	}
	out, err := exec.Command("sh", "-c", script, "sh", root, fmt.Sprint(len(n))).CombinedOutput()
	if err != nil {
		return errors.Join(err, fmt.Errorf("%s", out))
	}
	return nil
}
