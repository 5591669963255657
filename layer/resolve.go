package layer

import (
	"fmt"
	"path"
	"strings"
)

// A namespace is names below a root: the tree of a tar that is being read, or a layer.
type namespace[N any] interface {
	top() N
	lookup(dir N, name string) (N, bool)
	up(n N) (N, bool) // the parent; false for the root
	isDir(n N) bool
	symlink(n N) (target string, ok bool)
	spend(steps int) bool // counts the work of all paths together; false when it is too much
}

// maxLinksWalked is after how many symlinks containerd gives up on a path, maxFollows
// after how many the kernel does.
const (
	maxLinksWalked = 255
	maxFollows     = 40
)

// maxSteps bounds the work that one path through symlinks may cause.
const maxSteps = 1 << 20

// resolve finds what a path means below the root: symlinks are followed, absolute ones
// from the root, and none leads out of it. What does not exist is no symlink. This is
// what containerd does (continuity's fs.RootPath): it walks the path and puts the target
// of every symlink in its place, and again until a walk meets none. The names that remain
// are returned.
//
// One detail shows: the target of a symlink that ends the walk, and starts it or is
// absolute, is walked as it is. Other targets are cleaned of ".." first, by their words.
func resolve[N any](fs namespace[N], p string) ([]string, error) {
	w := walk[N]{fs: fs}
	for {
		before := w.links
		raw, err := w.pass(p)
		if err != nil {
			return nil, err
		}
		if w.links == before {
			return w.cur, nil
		}
		if p = raw; raw == "" {
			p = "/" + strings.Join(w.cur, "/")
		}
	}
}

// A walk is one call of resolve.
type walk[N any] struct {
	fs      namespace[N]
	cur     []string // the path so far
	at      N        // the node at cur, if known
	known   bool
	missing bool // nothing exists at cur, nor below
	links   int  // symlinks met
	steps   int
}

// pass walks p once, and leaves in cur what it comes to. It returns the target of a
// symlink that has to be walked as it is.
func (w *walk[N]) pass(p string) (raw string, err error) {
	w.cur, w.at, w.known, w.missing = nil, w.fs.top(), true, false
	first := !strings.HasPrefix(p, "/")
	for _, name := range strings.Split(p, "/") {
		if name == "" {
			continue
		}
		if w.links > maxLinksWalked {
			return "", fmt.Errorf("%w: too many symlinks", ErrTar)
		}
		raw = ""
		target, err := w.step(name)
		if err != nil {
			return "", err
		}
		if target != "" {
			w.links++
			if w.known = false; first || strings.HasPrefix(target, "/") {
				w.cur, raw = nil, target
			}
			parts := strings.Split(target, "/")
			if err := count(w.fs, &w.steps, len(parts)); err != nil {
				return "", err
			}
			for _, c := range parts {
				w.cur = push(w.cur, c)
			}
		}
		first = false
	}
	return raw, nil
}

// step goes on by one name. If that is a symlink, it returns the target and stays.
func (w *walk[N]) step(name string) (target string, err error) {
	next := push(w.cur, name)
	if len(next) == 0 {
		w.cur, w.at, w.known, w.missing = nil, w.fs.top(), true, false
		return "", nil
	}
	down := len(next) > len(w.cur)
	if w.missing && down {
		w.cur = next
		return "", nil
	}
	ok := false
	if w.known && down {
		if err := count(w.fs, &w.steps, 1); err != nil {
			return "", err
		}
		if !w.fs.isDir(w.at) {
			return "", notDir(next)
		}
		w.at, ok = w.fs.lookup(w.at, name)
	} else if w.at, ok, err = lstat(w.fs, next, &w.steps); err != nil {
		return "", err
	}
	if ok {
		if target, ok := w.fs.symlink(w.at); ok {
			return target, nil
		}
	}
	w.cur, w.known, w.missing = next, ok, !ok
	return "", nil
}

// push appends a component to a path without "." and "..", which never leaves the root.
func push(cur []string, name string) []string {
	switch name {
	case "", ".":
		return cur
	case "..":
		return cur[:max(len(cur)-1, 0)]
	}
	return append(cur, name)
}

// lstat looks up a path as the kernel does: symlinks on the way are followed, the last
// component is not. A way out of the root ends in nothing, since what is there on the
// machine that unpacks is no part of the layer.
func lstat[N any](fs namespace[N], names []string, steps *int) (n N, ok bool, err error) {
	todo := names
	n = fs.top()
	for follows := 0; len(todo) > 0; {
		if err := count(fs, steps, 1); err != nil {
			return n, false, err
		}
		if !fs.isDir(n) {
			return n, false, notDir(names)
		}
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if n, ok = fs.up(n); !ok {
				return n, false, nil
			}
			continue
		}
		next, ok := fs.lookup(n, name)
		if !ok || len(todo) == 0 {
			return next, ok, nil
		}
		n = next
		target, ok := fs.symlink(n)
		if !ok {
			continue
		}
		if follows++; follows > maxFollows {
			return n, false, fmt.Errorf("%w: too many symlinks", ErrTar)
		}
		if strings.HasPrefix(target, "/") {
			return n, false, nil
		}
		n, _ = fs.up(n)
		todo = append(strings.Split(target, "/"), todo...)
		if err := count(fs, steps, len(todo)); err != nil {
			return n, false, err
		}
	}
	return n, true, nil
}

func count[N any](fs namespace[N], steps *int, n int) error {
	if *steps += n; *steps > maxSteps || !fs.spend(n) {
		return fmt.Errorf("%w (path of too many steps)", ErrTooLarge)
	}
	return nil
}

func notDir(names []string) error {
	return fmt.Errorf("%w: something on the way to %.256q is not a directory", ErrTar, path.Join(names...))
}
