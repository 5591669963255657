#!/usr/bin/env python3
"""What images share, computed in another way: files are hashed from the tars of OCI layouts.

usage: oracle.py LAYOUT...     prints, for each level, the amounts of each set of layouts, as JSON
"""
import gzip, hashlib, io, json, os, subprocess, sys, tarfile

MIB, CHUNK = 1 << 20, 256 << 10


def blob(layout, digest):
    return os.path.join(layout, "blobs", *digest.split(":"))


def manifests(layout):
    """The manifest for linux/amd64, or the only one."""
    with open(os.path.join(layout, "index.json")) as f:
        found = json.load(f)["manifests"]
    while True:
        with open(blob(layout, found[0]["digest"])) as f:
            document = json.load(f)
        if "manifests" not in document:
            return document
        found = document["manifests"]


def opened(path):
    f = open(path, "rb")
    magic = f.read(4)
    f.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=f)
    if magic == b"\x28\xb5\x2f\xfd":
        return subprocess.Popen(["zstd", "-dc", path], stdout=subprocess.PIPE).stdout
    return f


class Hashed(io.RawIOBase):
    """Hashes and counts all that is read."""

    def __init__(self, f):
        self.f, self.sum, self.size = f, hashlib.sha256(), 0

    def read(self, n=-1):
        data = self.f.read(n)
        self.sum.update(data)
        self.size += len(data)
        return data


def norm(name):
    return os.path.normpath("/" + name)


def files(path):
    """The files of a layer by their paths, as they are when it was unpacked, each as a list of its pieces' sums."""
    stream = Hashed(opened(path))
    tree, directories = {}, set()
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as tar:
        for m in tar:
            name = norm(m.name)
            if os.path.basename(name).startswith(".wh."):
                continue
            above = os.path.dirname(name)
            while above not in directories:
                directories.add(above)
                above = os.path.dirname(above)
            if not m.isdir() and name in directories:  # what was below is gone when no directory is there any more
                directories.discard(name)
                for below in [n for n in tree if n.startswith(name + "/")]:
                    del tree[below]
            if m.isreg():
                tree[name] = content(tar.extractfile(m))
            elif m.islnk():
                tree[name] = tree.get(norm(m.linkname))  # None: what it leads to is in no layer of ours
            elif not (m.isdir() and tree.get(name) is None):
                tree[name] = None
    while stream.read(MIB):
        pass
    return tree, stream.sum.hexdigest(), stream.size


def content(f):
    """What a file is: its sum and size, and the sums and sizes of its pieces of 1 MiB and of 256 KiB."""
    whole, size, blocks, parts = hashlib.sha256(), 0, [], []
    while True:
        data = f.read(MIB)
        if not data:
            return whole.hexdigest(), size, tuple(blocks), tuple(parts)
        whole.update(data)
        size += len(data)
        blocks.append((hashlib.sha256(data).hexdigest(), len(data)))
        for at in range(0, len(data), CHUNK):
            piece = data[at:at + CHUNK]
            parts.append((hashlib.sha256(piece).hexdigest(), len(piece)))


def main():
    seen = {level: {} for level in ("blob", "tar", "file", "block", "part", "chunk")}

    def note(level, key, size, image):
        seen[level].setdefault(key, [size, set()])[1].add(image)

    known = {}
    for image, layout in enumerate(sys.argv[1:]):
        for layer in manifests(layout)["layers"]:
            digest, path = layer["digest"], blob(layout, layer["digest"])
            note("blob", digest, layer["size"], image)
            if digest not in known:
                chunks = []
                with open(path, "rb") as f:
                    while data := f.read(CHUNK):
                        chunks.append((hashlib.sha256(data).hexdigest(), len(data)))
                known[digest] = files(path) + (chunks,)
            tree, diff_id, size, chunks = known[digest]
            note("tar", diff_id, size, image)
            for key, n in chunks:
                note("chunk", key, n, image)
            for file in tree.values():
                if file is None:
                    continue
                whole, size, blocks, parts = file
                note("file", whole, size, image)
                for key, n in blocks:
                    note("block", key, n, image)
                for key, n in parts:
                    note("part", key, n, image)
    out = {}
    for level, things in seen.items():
        sets = {}
        for size, images in things.values():
            amount = sets.setdefault(" ".join(str(i) for i in sorted(images)), {"count": 0, "bytes": 0})
            amount["count"] += 1
            amount["bytes"] += size
        out[level] = sets
    json.dump(out, sys.stdout, indent=1, sort_keys=True)


main()
