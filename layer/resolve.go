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
func resolve[N any](fs namespace[N], p string) ([]string, error) {
	steps := 0
	for links := 0; ; {
		walked := false
		var cur []string
		at, known := fs.top(), true // the node at cur, as long as it is known
		missing := false            // nothing exists at cur, nor below
		for _, name := range strings.Split(p, "/") {
			if name == "" {
				continue
			}
			if links > maxLinksWalked {
				return nil, fmt.Errorf("%w: too many symlinks", ErrTar)
			}
			next := push(cur, name)
			if len(next) == 0 {
				cur, at, known, missing = nil, fs.top(), true, false
				continue
			}
			if missing && len(next) > len(cur) {
				cur = next
				continue
			}
			var ok bool
			var err error
			if known && len(next) > len(cur) {
				ok, err = step(fs, &at, next, &steps)
			} else {
				at, ok, err = lstat(fs, next, &steps)
			}
			if err != nil {
				return nil, err
			}
			before := cur
			cur, known, missing = next, ok, !ok
			if !ok {
				continue
			}
			if target, ok := fs.symlink(at); ok {
				links, walked, known = links+1, true, false
				cur = follow(before, target)
			}
		}
		if !walked {
			return cur, nil
		}
		p = strings.Join(cur, "/")
	}
}

// follow goes on from the directory of a symlink to its target.
func follow(cur []string, target string) []string {
	if strings.HasPrefix(target, "/") {
		cur = nil
	}
	for _, c := range strings.Split(target, "/") {
		cur = push(cur, c)
	}
	return cur
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

// step goes from at to the last name of next.
func step[N any](fs namespace[N], at *N, next []string, steps *int) (bool, error) {
	if err := count(steps); err != nil {
		return false, err
	}
	if !fs.isDir(*at) {
		return false, notDir(next)
	}
	n, ok := fs.lookup(*at, next[len(next)-1])
	if ok {
		*at = n
	}
	return ok, nil
}

// lstat looks up a path as the kernel does: symlinks on the way are followed, the last
// component is not. A way out of the root ends in nothing, since what is there on the
// machine that unpacks is no part of the layer.
func lstat[N any](fs namespace[N], names []string, steps *int) (n N, ok bool, err error) {
	todo := names
	n = fs.top()
	for follows := 0; len(todo) > 0; {
		if err := count(steps); err != nil {
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
	}
	return n, true, nil
}

func count(steps *int) error {
	if *steps++; *steps > maxSteps {
		return fmt.Errorf("%w (path of too many steps)", ErrTooLarge)
	}
	return nil
}

func notDir(names []string) error {
	return fmt.Errorf("%w: something on the way to %.256q is not a directory", ErrTar, path.Join(names...))
}
