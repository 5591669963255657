package transfer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// specExamples returns the rows of the table of examples: what they are, and their bytes.
func specExamples(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("../../../spec/transfer.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Examples")
	rows := map[string][]byte{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || !strings.Contains(cells[1], ":") {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(cells[2]), " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rows[strings.TrimSpace(cells[1])] = b
	}
	return rows
}

// TestSpecExamples decodes the examples, and encodes them again.
func TestSpecExamples(t *testing.T) {
	rows := specExamples(t)
	hello := blocks(t, 1, func(int) []byte { return []byte("hello\n") })[0].Cid
	for what, a := range map[string]ask{
		"request: want the block, rank 2":        {verb: wantBlock, rank: 2, cid: hello},
		"request: is it there?, rank 0":          {verb: wantHave, cid: hello},
		"request: tell when it is there, rank 2": {verb: wantNews, rank: 2, cid: hello},
		"request: cancel want 300":               {verb: wantCancel, id: 300},
	} {
		body := appendAsk(nil, a)
		if got := append(binary.AppendUvarint(nil, uint64(len(body))), body...); !bytes.Equal(got, rows[what]) {
			t.Errorf("%s: %x, the specification says %x", what, got, rows[what])
		}
		asks, err := readRequest(bufio.NewReader(bytes.NewReader(rows[what])), make([]byte, maxRequest))
		if err != nil || len(asks) != 1 || asks[0] != a {
			t.Errorf("%s: read as %+v, %v", what, asks, err)
		}
		delete(rows, what)
	}
	for what, want := range map[string]struct {
		head header
		data []byte
	}{
		"frame: want 0 is not there":        {header{kind: frameAbsent, parts: []part{{id: 0}}}, nil},
		"frame: wants 1 and 300 are there":  {header{kind: frameHere, parts: []part{{id: 1}, {id: 300}}}, nil},
		"frame: want 0 is the block":        {header{kind: frameRaw, parts: []part{{id: 0, size: 6}}}, []byte("hello\n")},
		"frame: want 5 is 1,000 zero bytes": {header{kind: frameZstd, parts: []part{{id: 5, size: 1000}}}, make([]byte, 1000)},
	} {
		r := bufio.NewReader(bytes.NewReader(rows[what]))
		h, err := readHeader(r)
		if err != nil || h.kind != want.head.kind || fmt.Sprint(h.parts) != fmt.Sprint(want.head.parts) {
			t.Errorf("%s: read as %+v, %v", what, h, err)
			continue
		}
		data, err := readBlocks(r, h, newCodec(t))
		if err != nil || !bytes.Equal(data, want.data) || r.Buffered() > 0 {
			t.Errorf("%s: %d bytes of blocks, %v, %d bytes left", what, len(data), err, r.Buffered())
		}
		if head := appendHeader(nil, h); !bytes.HasPrefix(rows[what], head) || len(head)+h.payload != len(rows[what]) {
			t.Errorf("%s: %x, the specification says %x", what, head, rows[what])
		}
		delete(rows, what)
	}
	for what := range rows {
		t.Errorf("nobody executes the example %q", what)
	}
}

// TestSpecLimits finds the limits in the words of the specification.
func TestSpecLimits(t *testing.T) {
	text, err := os.ReadFile("../../../spec/transfer.md")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		"`" + ID + "`",
		fmt.Sprintf("at most %d KiB", maxRequest>>10),
		fmt.Sprintf("more than %d,%03d wants", MaxUnanswered/1000, MaxUnanswered%1000),
		fmt.Sprintf("1 to %d,%03d", maxAnswers/1000, maxAnswers%1000),
		fmt.Sprintf("at most %d MiB (2,097,152)", ipfs.MaxBlock>>20),
	} {
		if !strings.Contains(words, want) {
			t.Errorf("the specification does not say %q", want)
		}
	}
	if IsWantable(cid.Undef) {
		t.Error("no CID is wantable")
	}
}
