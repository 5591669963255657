package images

import (
	"archive/tar"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Values of extended attributes as the kernel keeps them.
const (
	capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep
	// user::rw- user:12345:rw- group::r-- mask::rw- other::r--
	acl = "\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x39\x30\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	defaultACL = "\x02\x00\x00\x00" +
		"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\x39\x30\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
)

// Nasty returns an image with all that stock containerd can unpack and simple code
// gets wrong. What it says of a path stands in the path's name where it can.
func Nasty() Image {
	return Image{
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/true"}},
		Layers: []Layer{
			{CreatedBy: "base", Tar: Tar(nastyBase)},
			{CreatedBy: "changes", Tar: Tar(nastyChanges), Compression: Zstd},
			{CreatedBy: "nothing", Tar: Tar(func(*Tarball) {})},
			{CreatedBy: "names", Tar: Tar(nastyNames), Compression: None},
			{CreatedBy: "metadata", Tar: Tar(nastyMetadata)},
			{CreatedBy: "sizes", Tar: Tar(nastySizes)},
			{CreatedBy: "again", Tar: Tar(nastyAgain)},
		},
	}
}

func makeNasty(ctx context.Context, j job) error {
	return j.write(ctx, Nasty())
}

// nastyBase is what the layers above change.
func nastyBase(t *Tarball) {
	t.Dir(".", 0o755)
	for _, d := range []string{"bin", "gone", "gone/deep", "opaque", "opaque/old", "keep", "becomes-file", "chmod-only", "refilled", "merged"} {
		t.Dir(d, 0o755)
	}
	t.File("bin/true", 0o755, "not a program\n")
	t.File("gone/x", 0o644, "x")
	t.File("gone/deep/y", 0o644, "y")
	t.File("opaque/old/z", 0o644, "z")
	t.File("opaque/same-name", 0o644, "below")
	t.File("keep/k", 0o644, "k")
	t.Link("keep/k2", "keep/k")
	t.Link("keep/k3", "keep/k")
	t.File("becomes-file/inside", 0o644, "inside")
	t.File("becomes-dir", 0o644, "file")
	t.File("becomes-symlink", 0o644, "file")
	t.File("chmod-only/f", 0o644, "f")
	t.File("chmod-file", 0o600, "only the mode changes above")
	t.File("refilled/old", 0o644, "old")
	t.File("merged/below", 0o644, "below")
	t.File("implied/by/a/file", 0o644, "three parents have no entry")
	t.Symlink("to-dir", "merged")
	t.File("split-link-a", 0o644, "linked below, replaced above")
	t.Link("split-link-b", "split-link-a")
}

// nastyChanges removes, hides and replaces.
func nastyChanges(t *Tarball) {
	t.Whiteout("gone")
	t.Whiteout("keep/k")
	t.Whiteout("not-there")
	t.Dir("opaque", 0o750, Owner(7, 8))
	t.Opaque("opaque")
	t.File("opaque/new", 0o644, "new")
	t.File("opaque/same-name", 0o600, "above")
	t.File("becomes-file", 0o644, "a file now")
	t.Dir("becomes-dir", 0o700)
	t.File("becomes-dir/inside", 0o644, "inside")
	t.Symlink("becomes-symlink", "keep/k2")
	t.Dir("chmod-only", 0o700, Owner(1000, 1000), Mtime(1234567890, 987654321))
	t.File("chmod-file", 0o444, "only the mode changes above")
	t.Whiteout("refilled/old")
	t.File("refilled/new", 0o644, "new")
	t.File("merged/above", 0o644, "above")
	t.File("split-link-a", 0o644, "now a file of its own")
	t.Dir("empty-opaque", 0o755)
	t.Opaque("empty-opaque")
}

// nastyNames holds names and paths.
func nastyNames(t *Tarball) {
	t.Dir("names", 0o755)
	for _, name := range []string{
		strings.Repeat("n", 255), strings.Repeat("ü", 127), "bad\xff\xfeutf8", "new\nline", "tab\t", " space ", "trailing.",
		".whale", ".wh", "wh.", "back\\slash", "日本語", "quote\"'`$(x)", "-rf", "*?[]", "a:b,c=d", "%2e%2e", "...", "con", "\x01\x7f",
		"UPPER", "upper", "é", "e\u0301",
	} {
		t.File("names/"+name, 0o644, name)
	}
	deep := "deep"
	for range 60 {
		deep += "/" + strings.Repeat("d", 50)
	}
	t.File(deep+"/f", 0o644, "deep")
	t.Dir("many", 0o755)
	for i := range 30_000 {
		t.File(fmt.Sprintf("many/%05d", i), 0o644, "")
	}
	t.Symlink("names/long-target", "/nonexistent/"+strings.Repeat("t", 3000))
	t.Symlink("names/dot", ".")
	t.Symlink("names/loop", "loop")
	t.Symlink("names/up", "../../../..")
	t.Symlink("names/bytes", "bad\xff\nutf8")
}

// nastyMetadata holds owners, modes, times, attributes, nodes and links.
func nastyMetadata(t *Tarball) {
	t.Dir("meta", 0o755)
	t.File("meta/suid", 0o4755, "s", Owner(4294967294, 4294967294))
	t.File("meta/sgid", 0o2711, "s", Owner(2097152, 12345))
	t.File("meta/all-bits", 0o7777, "s")
	t.File("meta/no-bits", 0, "")
	t.Dir("meta/sticky", 0o1777)
	t.Dir("meta/sgid-dir", 0o2775, Owner(0, 50))
	t.File("meta/before-epoch", 0o644, "", Mtime(-2, 500_000_000))
	t.File("meta/long-before", 0o644, "", Mtime(-1<<33, 0))
	t.File("meta/epoch", 0o644, "", Mtime(0, 0))
	t.File("meta/after-u32", 0o644, "", Mtime(1<<32+1, 123_456_789))
	t.File("meta/nanosecond", 0o644, "", Mtime(1_700_000_000, 1))
	t.Dir("meta/dir-after-u32", 0o755, Mtime(1<<32+2, 999_999_999))
	t.Symlink("meta/owned-link", "suid", Owner(12345, 2097152), Mtime(1_500_000_000, 7))
	t.File("meta/capable", 0o755, "c", Xattr("security.capability", capNetRaw))
	t.File("meta/acl", 0o664, "a", Xattr("system.posix_acl_access", acl))
	t.Dir("meta/default-acl", 0o755, Xattr("system.posix_acl_default", defaultACL))
	t.File("meta/xattrs", 0o644, "x", Xattr("user.note", "a value"), Xattr("user.empty", ""),
		Xattr("user.large", strings.Repeat("v", 3000)), Xattr("trusted.note", "t"), Xattr("user.ünï", "name"))
	t.File("meta/binary-xattr", 0o644, "x", Xattr("user.binary", "\xff\x0a\xfe=\x80"))
	t.Node(tar.TypeChar, "meta/null", 0o666, 1, 3)
	t.Node(tar.TypeBlock, "meta/loop", 0o660, 7, 0, Owner(0, 6))
	t.Node(tar.TypeChar, "meta/large-minor", 0o600, 240, 70_000)
	t.Node(tar.TypeFifo, "meta/fifo", 0o640, 0, 0, Mtime(1_600_000_000, 3))
	t.File("meta/hard1", 0o640, "linked", Owner(1, 2), Mtime(1_400_000_000, 9), Xattr("user.on", "the inode"))
	t.Link("meta/hard2", "meta/hard1", Owner(1, 2), Mtime(1_400_000_000, 9))
	t.Dir("meta/sub", 0o755)
	t.Link("meta/sub/hard3", "meta/hard1", Owner(1, 2), Mtime(1_400_000_000, 9))
	t.Link("meta/hard-of-hard", "meta/sub/hard3", Owner(1, 2), Mtime(1_400_000_000, 9))
	t.Link("meta/hard-to-symlink", "meta/owned-link", Owner(12345, 2097152), Mtime(1_500_000_000, 7))
	t.Link("meta/hard-to-fifo", "meta/fifo", Mtime(1_600_000_000, 3))
	t.File("meta/late-metadata", 0o600, "first", Owner(3, 4))
	t.Link("meta/late-link", "meta/late-metadata", Owner(5, 6), Mtime(1_450_000_000, 1))
}

// nastySizes holds contents around the limits of chunks and nodes.
func nastySizes(t *Tarball) {
	t.Dir("sizes", 0o755)
	random := rand.NewChaCha8([32]byte{1})
	for _, n := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 262_144, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 12_345} {
		content := make([]byte, n)
		_, _ = random.Read(content) // never fails
		t.File(fmt.Sprintf("sizes/%d", n), 0o644, string(content))
		t.File(fmt.Sprintf("sizes/%d-same", n), 0o600, string(content), Owner(n%1000, 0))
	}
	t.File("sizes/zeros", 0o644, strings.Repeat("\x00", 3<<20))
	t.Sparse("sizes/sparse", 64<<20, 32<<20, "in the middle")
	t.Sparse("sizes/only-hole", 10<<20, 10<<20, "")
	t.File("after-sparse", 0o644, "the header after a sparse file is found")
}

// nastyAgain names paths twice, and turns what is there into something else and back.
func nastyAgain(t *Tarball) {
	t.Dir("twice", 0o755)
	t.File("twice/file", 0o600, "the first")
	t.File("twice/file", 0o644, "the last wins", Owner(9, 9))
	t.File("twice/file-dir", 0o644, "first a file")
	t.Dir("twice/file-dir", 0o711)
	t.File("twice/file-dir/f", 0o644, "in it")
	t.Dir("twice/dir-file", 0o755)
	t.File("twice/dir-file/lost", 0o644, "lost")
	t.File("twice/dir-file", 0o644, "a file in the end")
	t.Dir("twice/dir", 0o700)
	t.File("twice/dir/stays", 0o644, "stays")
	t.Dir("twice/dir", 0o751, Owner(4, 4))
	t.Symlink("twice/link", "file")
	t.Symlink("twice/link", "dir")
	t.File("twice/linked", 0o644, "of the first")
	t.Link("twice/linked-2", "twice/linked")
	t.File("twice/linked", 0o644, "of the second")
	t.Dir("becomes-file", 0o755)
	t.File("becomes-file/back", 0o644, "a directory again")
	t.File("becomes-dir", 0o644, "a file again")
	t.File("./twice//./odd-path", 0o644, "cleaned")
	t.Dir("gone", 0o755)
	t.File("gone/back", 0o644, "only this")
}
