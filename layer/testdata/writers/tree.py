#!/usr/bin/python3
"""Makes the tree of files that the tars here are of: tree.py DIR BYTES-OF-A-SPARSE-FILE.

Run as root, on a filesystem with extended attributes and ACLs."""
import os
import stat
import subprocess
import sys

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
NAMES = [
    b"n" * 94, b"n" * 95, b"n" * 99, b"n" * 100, b"n" * 101, b"n" * 150, b"n" * 255,
    b"bad\xff\xfeutf8", b"latin-\xe9", "ü-日本".encode(), "e\u0301".encode(), b"new\nline",
    b"tab\t", b" space ", b"back\\slash", b"a=b", b"-rf", b"*?[]", b"quote\"'", b"%41",
    b"\x01\x7f", b".wh", b"wh.x", b"trailing.",
]

times = []  # set at the end, since what is made in a directory changes its time


def file(path, body=b"", mode=0o644, owner=(0, 0), time=(1_500_000_000, 0)):
    with open(path, "wb") as f:
        f.write(body)
    os.chown(path, *owner)
    os.chmod(path, mode)
    times.append((path, *time))


def directory(path, mode=0o755, owner=(0, 0), time=(1_500_000_001, 0)):
    os.makedirs(path, exist_ok=True)
    os.chown(path, *owner)
    os.chmod(path, mode)
    times.append((path, *time))


def symlink(path, target, time=(1_500_000_002, 0)):
    os.symlink(target, path)
    times.append((path, *time))


def node(path, kind, major=0, minor=0):
    os.mknod(path, kind | 0o640, os.makedev(major, minor))
    times.append((path, 1_500_000_003, 0))


def sparse(path, size, *parts):
    file(path)
    with open(path, "r+b") as f:
        f.truncate(size)
        for offset, body in parts:
            f.seek(offset)
            f.write(body)


def attribute(path, name, value):
    os.setxattr(path, name.encode(), value, follow_symlinks=False)


def plain():
    directory(b"blocks")
    for n in (0, 1, 511, 512, 513, 1024, 10240, 20480):
        file(b"blocks/%d" % n, bytes((i * 7 + n) % 251 for i in range(n)))
    directory(b"empty-dir")
    directory(b"deep")
    directory(b"modes")
    for name, mode in ((b"setuid", 0o4755), (b"setgid", 0o2711), (b"all", 0o7777)):
        file(b"modes/" + name, b"s", mode)
    file(b"modes/none", b"", 0)
    directory(b"modes/sticky", 0o1777)
    directory(b"modes/sgid-dir", 0o2775, (0, 50))
    directory(b"owners")
    file(b"owners/big", b"o", owner=(2097157, 2097158))
    file(b"owners/bigger", b"o", owner=(4294967293, 4294967292))
    file(b"owners/small", b"o", owner=(1000, 65534))
    directory(b"times")
    for name, time in (
        (b"negative", (-5, 0)), (b"negative-fraction", (-5, 250_000_000)), (b"epoch", (0, 0)),
        (b"fraction", (1_600_000_000, 123_456_789)), (b"after-2038", (2**31 + 77, 0)),
        (b"after-2106", (2**33 + 5, 500_000_000)),
    ):
        file(b"times/" + name, b"t", time=time)
    directory(b"times/dir-fraction", time=(1_234_567_890, 987_654_321))
    symlink(b"times/link-fraction", b"epoch", (1_300_000_000, 1))


def links():
    directory(b"links")
    file(b"links/a", b"linked twice")
    os.link(b"links/a", b"links/b")
    directory(b"links/sub")
    os.link(b"links/a", b"links/sub/c")
    symlink(b"links/sym", b"a")
    os.link(b"links/sym", b"links/sym-hard", follow_symlinks=False)
    symlink(b"links/dangling", b"../no/such")
    symlink(b"links/abs", b"/etc/passwd")
    symlink(b"links/target-100", b"t" * 100)
    symlink(b"links/target-101", b"t" * 101)
    symlink(b"links/target-300", b"/".join([b"t" * 99] * 3))
    symlink(b"links/target-3000", b"/".join([b"u" * 99] * 30))
    file(b"links/empty1")
    os.link(b"links/empty1", b"links/empty2")


def names():
    directory(b"names")
    for name in NAMES:
        file(b"names/" + name, name)
    path = b"deep"
    for _ in range(6):
        path += b"/" + b"d" * 60
        directory(path)
    file(path + b"/" + b"f" * 120, b"path of more than 256")
    os.link(path + b"/" + b"f" * 120, path + b"/linked")
    directory(path + b"/" + b"e" * 200)
    file(b"deep/" + b"p" * 150, b"prefix")
    directory(b"deep/" + b"q" * 154)
    file(b"deep/" + b"q" * 149 + b"x")


def attributes():
    directory(b"xattrs")
    for name in (b"text", b"binary", b"large"):
        file(b"xattrs/" + name, b"x")
    attribute(b"xattrs/text", "user.note", b"a value")
    attribute(b"xattrs/text", "user.empty", b"")
    attribute(b"xattrs/text", "user.ünï=x%41", b"1")
    attribute(b"xattrs/binary", "user.binary", b"\xff\n\x00=\x80")
    attribute(b"xattrs/large", "user.large", b"v" * 2000)
    file(b"xattrs/capable", b"x", 0o755, (5, 5))
    attribute(b"xattrs/capable", "security.capability", CAPABILITY)
    directory(b"xattrs/dir")
    attribute(b"xattrs/dir", "user.on", b"a directory")
    file(b"xattrs/acl", b"x", 0o640)
    subprocess.check_call(["setfacl", "-m", "u:12345:rw", "xattrs/acl"])
    directory(b"xattrs/default-acl")
    subprocess.check_call(["setfacl", "-d", "-m", "u:12345:rx", "xattrs/default-acl"])


def nodes():
    directory(b"nodes")
    node(b"nodes/null", stat.S_IFCHR, 1, 3)
    node(b"nodes/loop", stat.S_IFBLK, 7, 0)
    node(b"nodes/large-minor", stat.S_IFCHR, 240, 70_000)
    node(b"nodes/fifo", stat.S_IFIFO)
    os.link(b"nodes/fifo", b"nodes/fifo-hard")


def holes(size):
    directory(b"sparse")
    sparse(b"sparse/middle", size, (size // 2, b"in the middle"))
    sparse(b"sparse/ends", size, (0, b"start"), (size - 3, b"end"))
    sparse(b"sparse/only-hole", size // 4)
    sparse(b"sparse/many", 60 * 65536 + 100, *[(i * 65536, b"%d" % i) for i in range(61)])
    file(b"sparse/zeros", b"\0" * 100_000)


def main():
    os.makedirs(sys.argv[1])
    os.chdir(sys.argv[1])
    plain()
    links()
    names()
    attributes()
    nodes()
    holes(int(sys.argv[2]))
    file(b"zz-last", b"after all")
    for path in (b"names", b"links", b"blocks", b"sparse", b"."):
        times.append((path, 1_500_000_004, 0))
    # Backwards, so that of two times of one path the first is set last.
    for path, seconds, nanoseconds in reversed(times):
        ns = seconds * 10**9 + nanoseconds
        os.utime(path, ns=(ns, ns), follow_symlinks=False)


if __name__ == "__main__":
    main()
