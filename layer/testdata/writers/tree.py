#!/usr/bin/python3
"""Makes a directory with all that is awkward in a tar: tree.py DIR BYTES-OF-A-SPARSE-FILE"""
import os, stat, sys, subprocess, struct
root, hole = sys.argv[1].encode(), int(sys.argv[2])
os.makedirs(root); os.chdir(root)
times = []
def at(p, sec, ns=0, follow=True): times.append((p, sec * 10**9 + ns))
def f(p, body=b"", mode=0o644, own=(0, 0), t=(1_500_000_000, 0)):
    with open(p, "wb") as h: h.write(body)
    os.chown(p, *own); os.chmod(p, mode); at(p, *t)
def d(p, mode=0o755, own=(0, 0), t=(1_500_000_001, 0)):
    os.makedirs(p, exist_ok=True); os.chown(p, *own); os.chmod(p, mode); at(p, *t)
def s(p, to, t=(1_500_000_002, 0)): os.symlink(to, p); at(p, *t)

d(b"blocks")
for n in (0, 1, 511, 512, 513, 1024, 10240, 20480): f(b"blocks/%d" % n, bytes((i * 7 + n) % 251 for i in range(n)))
d(b"empty-dir"); d(b"deep"); 
d(b"modes"); f(b"modes/setuid", b"s", 0o4755); f(b"modes/setgid", b"s", 0o2711); f(b"modes/all", b"s", 0o7777); f(b"modes/none", b"", 0)
d(b"modes/sticky", 0o1777); d(b"modes/sgid-dir", 0o2775, (0, 50))
d(b"owners"); f(b"owners/big", b"o", own=(2097157, 2097158)); f(b"owners/bigger", b"o", own=(4294967293, 4294967292)); f(b"owners/small", b"o", own=(1000, 65534))
d(b"times"); f(b"times/negative", b"t", t=(-5, 0)); f(b"times/negative-fraction", b"t", t=(-5, 250_000_000)); f(b"times/epoch", b"t", t=(0, 0))
f(b"times/fraction", b"t", t=(1_600_000_000, 123_456_789)); f(b"times/after-2038", b"t", t=(2**31 + 77, 0)); f(b"times/after-2106", b"t", t=(2**33 + 5, 500_000_000))
d(b"times/dir-fraction", t=(1_234_567_890, 987_654_321)); s(b"times/link-fraction", b"epoch", (1_300_000_000, 1))
d(b"links"); f(b"links/a", b"linked twice"); os.link(b"links/a", b"links/b"); d(b"links/sub"); os.link(b"links/a", b"links/sub/c")
s(b"links/sym", b"a"); os.link(b"links/sym", b"links/sym-hard"); s(b"links/dangling", b"../no/such"); s(b"links/abs", b"/etc/passwd")
s(b"links/target-100", b"t" * 100); s(b"links/target-101", b"t" * 101); s(b"links/target-300", b"/".join([b"t" * 99] * 3)); s(b"links/target-3000", b"/".join([b"u" * 99] * 30))
f(b"links/empty1"); os.link(b"links/empty1", b"links/empty2")
d(b"names")
for n in (b"n" * 94, b"n" * 95, b"n" * 99, b"n" * 100, b"n" * 101, b"n" * 150, b"n" * 255, b"bad\xff\xfeutf8", b"latin-\xe9", "ü-日本".encode(), "e\u0301".encode(), b"new\nline", b"tab\t", b" space ", b"back\\slash", b"a=b", b"-rf", b"*?[]", b"quote\"'", b"%41", b"\x01\x7f", b".wh", b"wh.x", b"trailing."):
    f(b"names/" + n, n)
p = b"deep"
for i in range(6): p += b"/" + b"d" * 60; d(p)
f(p + b"/" + b"f" * 120, b"path of more than 256"); os.link(p + b"/" + b"f" * 120, p + b"/linked"); d(p + b"/" + b"e" * 200)
f(b"deep/" + b"p" * 150, b"prefix"); d(b"deep/" + b"q" * 154); f(b"deep/" + b"q" * 149 + b"x", b"")
def x(p, **kw):
    for k, v in kw.items(): os.setxattr(p, k.replace("__", ".").encode(), v, follow_symlinks=False)
d(b"xattrs"); f(b"xattrs/text", b"x"); x(b"xattrs/text", user__note=b"a value", user__empty=b"")
f(b"xattrs/binary", b"x"); x(b"xattrs/binary", user__binary=b"\xff\n\x00=\x80")
os.setxattr(b"xattrs/text", "user.ünï=x%41".encode(), b"1")
f(b"xattrs/capable", b"x", 0o755, (5, 5)); x(b"xattrs/capable", security__capability=bytes.fromhex("0100000200200000000000000000000000000000"))
d(b"xattrs/dir"); x(b"xattrs/dir", user__on=b"a directory")
f(b"xattrs/large", b"x"); x(b"xattrs/large", user__large=b"v" * 2000)
f(b"xattrs/acl", b"x", 0o640); subprocess.check_call(["setfacl", "-m", "u:12345:rw", "xattrs/acl"])
d(b"xattrs/default-acl"); subprocess.check_call(["setfacl", "-d", "-m", "u:12345:rx", "xattrs/default-acl"])
d(b"nodes")
def node(p, kind, ma=0, mi=0):
    os.mknod(p, kind | 0o640, os.makedev(ma, mi)); at(p, 1_500_000_003)
node(b"nodes/null", stat.S_IFCHR, 1, 3); node(b"nodes/loop", stat.S_IFBLK, 7, 0); node(b"nodes/large-minor", stat.S_IFCHR, 240, 70_000); node(b"nodes/fifo", stat.S_IFIFO)
os.link(b"nodes/fifo", b"nodes/fifo-hard")
d(b"sparse")
def sp(p, size, *parts):
    f(p)
    with open(p, "r+b") as h:
        h.truncate(size)
        for off, body in parts: h.seek(off); h.write(body)
sp(b"sparse/middle", hole, (hole // 2, b"in the middle"))
sp(b"sparse/ends", hole, (0, b"start"), (hole - 3, b"end"))
sp(b"sparse/only-hole", hole // 4)
sp(b"sparse/many", 60 * 65536 + 100, *[(i * 65536, b"%d" % i) for i in range(61)])
f(b"sparse/zeros", b"\0" * 100_000)
f(b"zz-last", b"after all")
for p in (b"names", b"links", b"blocks", b"sparse", b"."): at(p, 1_500_000_004)
for p, ns in reversed(times): os.utime(p, ns=(ns, ns), follow_symlinks=False)
