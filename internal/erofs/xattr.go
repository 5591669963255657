package erofs

import (
	"fmt"
	"strings"
)

// xattrNamespaces are those that the kernel's EROFS knows, by the number that stands
// for the prefix. The last two are whole names.
var xattrNamespaces = [...]struct {
	prefix string
	number byte
	whole  bool
}{
	{"user.", 1, false},
	{"trusted.", 4, false},
	{"security.", 6, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
}

// HasXattr says whether EROFS has the namespace of an extended attribute. The kernel
// has no other namespaces for files either, but some file systems add their own.
func HasXattr(name string) bool {
	_, _, ok := splitXattr(name)
	return ok
}

func splitXattr(name string) (number byte, suffix string, ok bool) {
	for _, ns := range xattrNamespaces {
		suffix, found := strings.CutPrefix(name, ns.prefix)
		if found && (suffix == "") == ns.whole {
			return ns.number, suffix, true
		}
	}
	return 0, "", false
}

// appendXattrs encodes the extended attributes of an inode: a header, and the entries,
// each filled up to four bytes. Without any there is no header either.
func appendXattrs(b []byte, xattrs []Xattr) ([]byte, error) {
	if len(xattrs) == 0 {
		return b, nil
	}
	b = append(b, make([]byte, xattrHeaderSize)...)
	for i, x := range xattrs {
		number, suffix, ok := splitXattr(x.Name)
		switch {
		case !ok || len(x.Name) > maxName || strings.IndexByte(x.Name, 0) >= 0:
			return b, fmt.Errorf("%w: %.40q: no such name", ErrXattr, x.Name)
		case len(x.Value) > maxXattrValue:
			return b, fmt.Errorf("%w: %q has %d bytes, at most %d fit", ErrXattr, x.Name, len(x.Value), maxXattrValue)
		case i > 0 && xattrs[i-1].Name >= x.Name:
			return b, fmt.Errorf("%w: %q after %q", ErrXattr, x.Name, xattrs[i-1].Name)
		}
		b = append(b, byte(len(suffix)), number)
		b = le.AppendUint16(b, uint16(len(x.Value)))
		b = append(b, suffix...)
		b = append(b, x.Value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	if len(b) > maxXattrBytes {
		return b, fmt.Errorf("%w: all together have %d bytes, at most %d fit", ErrXattr, len(b), maxXattrBytes)
	}
	return b, nil
}
