package layer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// A tarPart is a piece of a tar as vectors have it (spec/testdata/README.md, "Tars"): one of
// its fields is set.
type tarPart struct {
	Header *tarHeader `json:"header,omitempty"`
	Text   string     `json:"text,omitempty"`
	Hex    string     `json:"hex,omitempty"`
	Zeros  int        `json:"zeros,omitempty"`
	Pad    bool       `json:"pad,omitempty"`
	Repeat *tarRepeat `json:"repeat,omitempty"`
}

type tarRepeat struct {
	Text  string `json:"text"`
	Count int    `json:"count"`
}

// A tarHeader is a header block.
type tarHeader struct {
	Name     string `json:"name,omitempty"`
	Mode     string `json:"mode,omitempty"` // octal
	UID      int64  `json:"uid,omitempty"`
	GID      int64  `json:"gid,omitempty"`
	Size     int64  `json:"size,omitempty"`
	Mtime    int64  `json:"mtime,omitempty"`
	Type     string `json:"type,omitempty"`
	Link     string `json:"link,omitempty"`
	Magic    string `json:"magic,omitempty"`
	Major    *int64 `json:"major,omitempty"`
	Minor    *int64 `json:"minor,omitempty"`
	Prefix   string `json:"prefix,omitempty"`
	Checksum *int64 `json:"checksum,omitempty"`
}

// blockBytes is the length of a block of a tar.
const blockBytes = 512

func (h *tarHeader) block() ([]byte, error) {
	b := make([]byte, blockBytes)
	magics := map[string]string{"": "ustar\x0000", "ustar": "ustar\x0000", "gnu": "ustar  \x00", "none": ""}
	magic, ok := magics[h.Magic]
	if !ok {
		return nil, fmt.Errorf("magic %q", h.Magic)
	}
	mode, err := strconv.ParseInt("0"+h.Mode, 8, 64)
	if err != nil {
		return nil, fmt.Errorf("mode %q: %w", h.Mode, err)
	}
	for _, f := range []struct {
		at, size int
		value    string
	}{{0, 100, h.Name}, {156, 1, h.Type}, {157, 100, h.Link}, {257, 8, magic}, {345, 155, h.Prefix}} {
		if copy(b[f.at:f.at+f.size], f.value) < len(f.value) {
			return nil, fmt.Errorf("%q has more than %d bytes", f.value, f.size)
		}
	}
	type number struct {
		at, size int
		value    int64
	}
	numbers := []number{{100, 8, mode}, {108, 8, h.UID}, {116, 8, h.GID}, {124, 12, h.Size}, {136, 12, h.Mtime}}
	if h.Major != nil || h.Minor != nil {
		numbers = append(numbers, number{329, 8, valueOf(h.Major)}, number{337, 8, valueOf(h.Minor)})
	}
	for _, f := range numbers {
		digits := fmt.Sprintf("%0*o", f.size-1, f.value)
		if len(digits) != f.size-1 {
			return nil, fmt.Errorf("%d does not fit %d octal digits", f.value, f.size-1)
		}
		copy(b[f.at:], digits)
	}
	if fixChecksum(b); h.Checksum != nil {
		copy(b[148:], fmt.Sprintf("%06o\x00 ", *h.Checksum))
	}
	return b, nil
}

func valueOf(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// appendTo appends the bytes of a part to a tar.
func (p *tarPart) appendTo(b []byte) ([]byte, error) {
	set := 0
	for _, is := range []bool{p.Header != nil, p.Text != "", p.Hex != "", p.Zeros != 0, p.Pad, p.Repeat != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return nil, fmt.Errorf("a part of a tar has %d members", set)
	}
	switch {
	case p.Header != nil:
		block, err := p.Header.block()
		return append(b, block...), err
	case p.Hex != "":
		raw, err := hex.DecodeString(p.Hex)
		return append(b, raw...), err
	case p.Pad:
		return append(b, make([]byte, -len(b)&(blockBytes-1))...), nil
	case p.Repeat != nil:
		return append(b, strings.Repeat(p.Repeat.Text, p.Repeat.Count)...), nil
	}
	return append(append(b, p.Text...), make([]byte, p.Zeros)...), nil
}

// buildTar puts a tar together.
func buildTar(t *testing.T, parts []tarPart) []byte {
	t.Helper()
	var b []byte
	for i := range parts {
		var err error
		if b, err = parts[i].appendTo(b); err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
	}
	return b
}

// joined is parts of parts, without the end of the archive, and never nil.
func joined(groups ...[]tarPart) []tarPart {
	out := []tarPart{}
	for _, g := range groups {
		out = append(out, g...)
	}
	return out
}

// ended is joined with the end of the archive.
func ended(groups ...[]tarPart) []tarPart {
	return append(joined(groups...), tarPart{Zeros: 2 * blockBytes})
}

// bare is a header alone.
func bare(h tarHeader) []tarPart { return []tarPart{{Header: &h}} }

// stored is an entry with its content.
func stored(h tarHeader, body string) []tarPart {
	h.Size = int64(len(body))
	out := bare(h)
	if body != "" {
		out = append(out, tarPart{Text: body})
	}
	if len(body)%blockBytes != 0 {
		out = append(out, tarPart{Pad: true})
	}
	return out
}

// repeated is an entry with the content of one byte, repeated.
func repeated(h tarHeader, body string, count int) []tarPart {
	h.Size = int64(len(body) * count)
	return append(bare(h), tarPart{Repeat: &tarRepeat{body, count}}, tarPart{Pad: true})
}

func fileEntry(name, body string) []tarPart {
	return stored(tarHeader{Name: name, Mode: "644", Type: "0"}, body)
}

func dirEntry(name string) []tarPart { return bare(tarHeader{Name: name, Mode: "755", Type: "5"}) }

func linkEntry(name, to string) []tarPart {
	return bare(tarHeader{Name: name, Mode: "644", Type: "1", Link: to})
}

func symEntry(name, to string) []tarPart {
	return bare(tarHeader{Name: name, Mode: "777", Type: "2", Link: to})
}

func deviceEntry(name, typ string, major, minor int64) []tarPart {
	return bare(tarHeader{Name: name, Mode: "644", Type: typ, Major: &major, Minor: &minor})
}

// pax is a PAX header with these records, each KEY=VALUE.
func pax(records ...string) []tarPart {
	return stored(tarHeader{Name: "x", Type: "x"}, paxText(records))
}

// global is a global PAX header.
func global(records ...string) []tarPart {
	return stored(tarHeader{Name: "g", Type: "g"}, paxText(records))
}

func paxText(records []string) string {
	var b strings.Builder
	for _, r := range records {
		before, after := paxRecord(r, 0)
		b.WriteString(before + after)
	}
	return b.String()
}

// paxRecord is a record, in two pieces between which more bytes of the value belong.
func paxRecord(record string, more int) (before, after string) {
	rest := len(" ") + len(record) + more + len("\n")
	for n := rest + 1; ; n++ {
		if length := strconv.Itoa(n); len(length)+rest == n {
			return length + " " + record, "\n"
		}
	}
}

// paxLong is a PAX header with one record, KEY= and then so many bytes of x.
func paxLong(key string, count int) []tarPart {
	before, after := paxRecord(key+"=", count)
	h := tarHeader{Name: "x", Type: "x", Size: int64(len(before) + count + len(after))}
	return append(bare(h), tarPart{Text: before}, tarPart{Repeat: &tarRepeat{"x", count}}, tarPart{Text: after}, tarPart{Pad: true})
}

// long is a GNU header for a long name (L) or link (K): the text, repeated.
func long(typ, body string, count int) []tarPart {
	h := tarHeader{Name: "././@LongLink", Type: typ, Magic: "gnu"}
	if count == 1 {
		return stored(h, body)
	}
	return repeated(h, body, count)
}

// A patch is bytes in a header block.
type patch struct {
	at   int
	text string
}

// patched is a header that a tarHeader cannot say, with the right checksum.
func patched(t *testing.T, h tarHeader, patches ...patch) []tarPart {
	t.Helper()
	b, err := h.block()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range patches {
		copy(b[p.at:], p.text)
	}
	fixChecksum(b)
	return runsOf(b)
}

// runsOf writes a block as hex, with long runs of zeros by their length.
func runsOf(b []byte) []tarPart {
	const least = 8
	var out []tarPart
	for len(b) > 0 {
		n := bytes.Index(b, make([]byte, least))
		if n < 0 {
			return append(out, tarPart{Hex: hex.EncodeToString(b)})
		}
		if n > 0 {
			out = append(out, tarPart{Hex: hex.EncodeToString(b[:n])})
			b = b[n:]
		}
		zeros := len(b) - len(bytes.TrimLeft(b, "\x00"))
		out = append(out, tarPart{Zeros: zeros})
		b = b[zeros:]
	}
	return out
}
