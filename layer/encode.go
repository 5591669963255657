package layer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protowire"
)

// The header of an index.
const (
	indexVersion = 1
	profile      = "unixfs-v1-2025"
)

// Tags of the wire form (spec/layer.proto): the field number, shifted by the wire type.
const (
	tagVersion = 1<<3 | 0
	tagProfile = 2<<3 | 2
	tagEntry   = 3<<3 | 2

	tagName   = 1<<3 | 2
	tagUID    = 2<<3 | 0
	tagGID    = 3<<3 | 0
	tagDepth  = 4<<3 | 0
	tagFlags  = 5<<3 | 0
	tagMode   = 6<<3 | 0
	tagSize   = 7<<3 | 0
	tagDigest = 8<<3 | 2
	tagTarget = 9<<3 | 2
	tagMajor  = 10<<3 | 0
	tagMinor  = 11<<3 | 0
	tagXattr  = 12<<3 | 2
	tagMtime  = 13<<3 | 0
	tagNsec   = 14<<3 | 0
	tagLink   = 15<<3 | 0
	tagLeaves = 16<<3 | 2

	tagXattrName = 1<<3 | 2
	tagXattrData = 2<<3 | 2
)

// Bits of the field flags.
const (
	flagImplied = 1 << iota
	flagOpaque
	flagWhiteout
	flagKeepXattrs
	flagsEnd
)

// EncodeIndex writes an index in its only form (spec/layer.md, "Index"). It refuses
// what DecodeIndex would refuse.
func EncodeIndex(x *Index) ([]byte, error) {
	var out bytes.Buffer
	if _, err := encodeIndex(&out, x); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// encodeIndex writes an index to w, and returns its length in bytes.
func encodeIndex(w io.Writer, x entries) (int64, error) {
	n, err := encodeEntries(w, x)
	if err != nil {
		return n, fmt.Errorf("encode index: %w", err)
	}
	return n, nil
}

func encodeEntries(w io.Writer, x entries) (int64, error) {
	if x.count() > MaxEntries {
		return 0, fmt.Errorf("%d entries: %w (%d entries)", x.count(), ErrTooLarge, MaxEntries)
	}
	if x.count() == 0 {
		return 0, fmt.Errorf("%w: no root entry", ErrIndex)
	}
	out := bufio.NewWriterSize(w, indexPiece)
	head := appendUint(nil, tagVersion, indexVersion)
	head = appendString(head, tagProfile, profile)
	n, err := out.Write(head)
	if err != nil {
		return 0, err
	}
	size := int64(n)
	var buf, length []byte
	v := validator{entries: x}
	err = x.each(func(i, depth int, e *Entry) error {
		if err := v.entry(i, depth, e); err != nil {
			return err
		}
		buf = appendEntry(buf[:0], e, depth)
		length = protowire.AppendVarint(length[:0], tagEntry)
		length = protowire.AppendVarint(length, uint64(len(buf)))
		if size += int64(len(length) + len(buf)); size > MaxIndex {
			return fmt.Errorf("%w (%d bytes)", ErrTooLarge, MaxIndex)
		}
		if _, err := out.Write(length); err != nil {
			return err
		}
		_, err := out.Write(buf)
		return err
	})
	if err != nil {
		return size, err
	}
	return size, out.Flush()
}

func appendEntry(b []byte, e *Entry, depth int) []byte {
	b = appendString(b, tagName, e.Name)
	b = appendUint(b, tagUID, uint64(e.UID))
	b = appendUint(b, tagGID, uint64(e.GID))
	b = appendUint(b, tagDepth, uint64(depth))
	b = appendUint(b, tagFlags, e.flags())
	b = appendUint(b, tagMode, uint64(e.Mode))
	b = appendUint(b, tagSize, uint64(e.Size))
	b = appendString(b, tagDigest, e.Digest)
	b = appendString(b, tagTarget, e.Target)
	if x := e.Extra; x != nil {
		b = appendUint(b, tagMajor, uint64(x.Major))
		b = appendUint(b, tagMinor, uint64(x.Minor))
		for _, a := range x.Xattrs {
			b = appendXattr(b, a)
		}
	}
	b = appendUint(b, tagMtime, protowire.EncodeZigZag(e.Mtime))
	b = appendUint(b, tagNsec, uint64(e.MtimeNsec))
	if e.Link >= 0 {
		b = appendUint(b, tagLink, uint64(e.Link))
	}
	return appendString(b, tagLeaves, e.Leaves())
}

func appendXattr(b []byte, a Xattr) []byte {
	var x []byte
	x = appendString(x, tagXattrName, a.Name)
	x = appendString(x, tagXattrData, a.Value)
	b = protowire.AppendVarint(b, tagXattr)
	return protowire.AppendBytes(b, x)
}

// appendUint and appendString leave out what is zero or empty, as proto3 does.
func appendUint(b []byte, tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendVarint(b, tag)
	return protowire.AppendVarint(b, v)
}

func appendString(b []byte, tag uint64, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendVarint(b, tag)
	return protowire.AppendString(b, s)
}

func (e *Entry) flags() uint64 {
	var f uint64
	for _, set := range []struct {
		on  bool
		bit uint64
	}{{e.Implied, flagImplied}, {e.Opaque, flagOpaque}, {e.Whiteout, flagWhiteout}, {e.KeepXattrs, flagKeepXattrs}} {
		if set.on {
			f |= set.bit
		}
	}
	return f
}

func (e *Entry) setFlags(f uint64) {
	e.Implied = f&flagImplied != 0
	e.Opaque = f&flagOpaque != 0
	e.Whiteout = f&flagWhiteout != 0
	e.KeepXattrs = f&flagKeepXattrs != 0
}

// permBits are the bits of a mode besides the type.
const permBits = os.ModePerm | os.ModeSetuid | os.ModeSetgid | os.ModeSticky

// impliedMode is the mode that an implied directory has when no layer below has it.
const impliedMode = os.ModeDir | 0o755
