package erofs

// dirent is one entry of a directory as it is written.
type dirent struct {
	name string
	nid  uint32
	typ  byte
}

// dots are the entries every directory has; they sort before most names, not all.
var dots = [...]string{".", ".."}

// dirSize returns the size of a directory: whole blocks but for the last one, since no
// entry is split.
func dirSize(entries []Dirent) uint64 {
	var full, used int
	add := func(name string) {
		if used+direntSize+len(name) > blockSize {
			full++
			used = 0
		}
		used += direntSize + len(name)
	}
	next := 0
	for _, e := range entries {
		for next < len(dots) && dots[next] < e.Name {
			add(dots[next])
			next++
		}
		add(e.Name)
	}
	for ; next < len(dots); next++ {
		add(dots[next])
	}
	return uint64(full)*blockSize + uint64(used)
}

// dirents returns the entries of directory i with "." and "..", sorted.
func (img *image) dirents(i int, entries []Dirent) []dirent {
	out := img.dir[:0]
	self := [...]int{i, int(img.parent[i])}
	next := 0
	for _, e := range entries {
		for next < len(dots) && dots[next] < e.Name {
			out = append(out, dirent{dots[next], img.nids[self[next]], typeDir})
			next++
		}
		out = append(out, dirent{e.Name, img.nids[e.Inode], img.types[e.Inode]})
	}
	for ; next < len(dots); next++ {
		out = append(out, dirent{dots[next], img.nids[self[next]], typeDir})
	}
	img.dir = out
	return out
}

// cutBlock splits entries into those of the next block, and the others. It also returns
// the bytes that the block uses.
func cutBlock(entries []dirent) (block, rest []dirent, used int) {
	for i, e := range entries {
		if used+direntSize+len(e.name) > blockSize {
			return entries[:i], entries[i:], used
		}
		used += direntSize + len(e.name)
	}
	return entries, nil, used
}

// encodeDirents writes one block: the entries, and then their names. It returns what it
// used of b, which must be zero.
func encodeDirents(b []byte, entries []dirent) []byte {
	name := len(entries) * direntSize
	for i, e := range entries {
		d := b[i*direntSize:]
		le.PutUint64(d, uint64(e.nid))
		le.PutUint16(d[8:], uint16(name))
		d[10] = e.typ
		name += copy(b[name:], e.name)
	}
	return b[:name]
}
