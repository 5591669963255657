// Package layertest holds what tests of several packages need of the layer format: tars, and
// the files of test vectors in spec/testdata. It does not know package layer, whose own tests
// use it.
package layertest

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"
)

// A File is an entry of a test's tar.
type File struct {
	Name, Body, Link string
	Type             byte  // regular file if zero
	Mode             int64 // 0644 if zero
	UID, GID         int
	Sec              int64 // when it was modified
	Xattrs           map[string]string
	Major, Minor     int64
}

// Header is the header of a file.
func (f File) Header() *tar.Header {
	if f.Type == tar.TypeXGlobalHeader {
		return &tar.Header{Name: f.Name, Typeflag: f.Type, PAXRecords: map[string]string{"comment": "x"}}
	}
	h := &tar.Header{Name: f.Name, Typeflag: f.Type, Linkname: f.Link, Mode: f.Mode, Uid: f.UID, Gid: f.GID,
		Size: int64(len(f.Body)), ModTime: time.Unix(f.Sec, 0), Devmajor: f.Major, Devminor: f.Minor, Format: tar.FormatPAX}
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	for k, v := range f.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return h
}

// Tar makes a tar of files.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(f.Header()); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if _, err := w.Write([]byte(f.Body)); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
