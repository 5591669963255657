package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/hinshun/ipcs/ipfs"
)

// receive gives a client that wants these blocks what a server might send, and returns the
// answers, and how it ended.
func receive(t testing.TB, codec *Codec, want []ipfs.Block, stream []byte) ([]Answer, error) {
	t.Helper()
	c := NewClient(io.Discard, codec, new(Received))
	if err := c.Send(wants(want, 0)); err != nil {
		t.Fatal(err)
	}
	var all []Answer
	err := c.Receive(bytes.NewReader(stream), func(a []Answer) { all = append(all, a...) })
	return all, err
}

// frame encodes a frame as its header says, and its payload as it is.
func frame(h header, payload []byte) []byte {
	h.payload = len(payload)
	return append(appendHeader(nil, h), payload...)
}

// squeeze compresses as others may.
func squeeze(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(data, nil)
}

// hostile returns streams of servers that break the protocol, for a client that wants two
// blocks.
func hostile(t testing.TB, want []ipfs.Block) map[string][]byte {
	t.Helper()
	a, b := want[0].Data, want[1].Data
	one, two := []part{{size: len(a)}}, []part{{size: len(a)}, {id: 1, size: len(b)}}
	good := squeeze(t, a)
	bomb := squeeze(t, make([]byte, 64<<20))
	return map[string][]byte{
		"wrong bytes":               frame(header{kind: frameRaw, parts: one}, b),
		"wrong bytes, compressed":   frame(header{kind: frameZstd, parts: one}, squeeze(t, b)),
		"right and wrong":           frame(header{kind: frameRaw, parts: two}, slices.Concat(a, a)),
		"swapped":                   frame(header{kind: frameRaw, parts: two}, slices.Concat(b, a)),
		"another length":            frame(header{kind: frameRaw, parts: []part{{size: 10}}}, a[:10]),
		"never wanted":              frame(header{kind: frameRaw, parts: []part{{id: 2, size: len(a)}}}, a),
		"twice":                     slices.Concat(frame(header{kind: frameRaw, parts: one}, a), frame(header{kind: frameRaw, parts: one}, a)),
		"twice in a frame":          frame(header{kind: frameAbsent, parts: []part{{id: 1}, {id: 1}}}, nil),
		"here for a block":          frame(header{kind: frameHere, parts: []part{{id: 0}}}, nil),
		"unknown frame":             {9, 1, 0},
		"no answers":                {byte(frameAbsent), 0},
		"too many answers":          frame(header{kind: frameAbsent, parts: make([]part, maxAnswers+1)}, nil),
		"too large":                 frame(header{kind: frameRaw, parts: []part{{id: 0, size: maxFrame}, {id: 1, size: 1}}}, nil),
		"far too large":             frame(header{kind: frameRaw, parts: []part{{id: 0, size: 1 << 60}}}, nil),
		"a number in long form":     {byte(frameAbsent), 0x81, 0x00, 0},
		"a number without end":      bytes.Repeat([]byte{0xff}, 100),
		"larger when compressed":    frame(header{kind: frameZstd, parts: one}, append(slices.Clone(good), make([]byte, len(a))...)),
		"nothing compressed":        frame(header{kind: frameZstd, parts: one}, nil),
		"a bomb":                    frame(header{kind: frameZstd, parts: one}, bomb[:min(len(bomb), len(a)-1)]),
		"a whole bomb":              frame(header{kind: frameZstd, parts: []part{{id: 0, size: maxFrame}}}, bomb),
		"a bomb of many frames":     frame(header{kind: frameZstd, parts: one}, bytes.Repeat(good, (len(a)-1)/len(good))),
		"a frame that ends early":   frame(header{kind: frameZstd, parts: []part{{id: 0, size: len(a) + 1}}}, good),
		"not zstd":                  frame(header{kind: frameZstd, parts: one}, []byte("not zstd")),
		"a window without end":      frame(header{kind: frameZstd, parts: one}, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0}),
		"a frame without its size":  frame(header{kind: frameZstd, parts: []part{{id: 0, size: len(a) - 1}}}, stream(t, a)),
		"a dictionary that is none": frame(header{kind: frameZstd, parts: one}, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x00, 7, 1, 0, 0}),
	}
}

// stream compresses without saying how much.
func stream(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	e, err := zstd.NewWriter(&buf)
	if err == nil {
		_, err = e.Write(data)
	}
	if err = errors.Join(err, e.Flush(), e.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestHostileServers(t *testing.T) {
	codec, want := newCodec(t), text(t, 2, 100_000)
	for name, sent := range hostile(t, want) {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			answers, err := receive(t, codec, want, sent)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, ipfs.ErrHash) {
				t.Errorf("Receive = %v, want that the peer is to blame", err)
			}
			for _, a := range answers {
				if a.State != Sent || ipfs.Verify(a.Cid, a.Block.Data) != nil {
					t.Errorf("a block is delivered that is wrong")
				}
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
				t.Errorf("it cost %d bytes of memory", used)
			}
		})
	}
}

// TestHalfFrames ends a good stream after each byte.
func TestHalfFrames(t *testing.T) {
	codec, want := newCodec(t), text(t, 2, 300)
	all := slices.Concat(
		frame(header{kind: frameRaw, parts: []part{{id: 1, size: 300}}}, want[1].Data),
		frame(header{kind: frameZstd, parts: []part{{id: 0, size: 300}}}, squeeze(t, want[0].Data)))
	ends := map[int]int{0: 0, len(all): 2} // where frames end, and how many
	ends[bytes.Index(all, want[1].Data)+300] = 1
	for n := range len(all) + 1 {
		answers, err := receive(t, codec, want, all[:n])
		blocks, whole := ends[n]
		if whole && (err != nil || len(answers) != blocks) {
			t.Errorf("after %d bytes: %d answers, %v", n, len(answers), err)
		}
		if !whole && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v, want that the end is missed", n, err)
		}
	}
}

// FuzzFrames gives a client what a server might send.
func FuzzFrames(f *testing.F) {
	codec, want := newCodec(f), text(f, 2, 5000)
	f.Add(frame(header{kind: frameRaw, parts: []part{{id: 1, size: 5000}}}, want[1].Data))
	f.Add(frame(header{kind: frameZstd, parts: []part{{id: 0, size: 5000}, {id: 1, size: 5000}}}, squeeze(f, append(want[0].Data[:5000:5000], want[1].Data...))))
	f.Add(frame(header{kind: frameAbsent, parts: []part{{id: 1}, {id: 0}}}, nil))
	for _, sent := range hostile(f, want) {
		if len(sent) < 64<<10 {
			f.Add(sent)
		}
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		answers, err := receive(t, codec, want, sent)
		for _, a := range answers {
			if a.State == Sent && ipfs.Verify(a.Cid, a.Block.Data) != nil {
				t.Errorf("a block is delivered that is wrong")
			}
		}
		if len(answers) > len(want) {
			t.Errorf("%d answers to %d wants: %v", len(answers), len(want), err)
		}
	})
}

// FuzzRequest decodes requests, and encodes again what it could.
func FuzzRequest(f *testing.F) {
	list := text(f, 2, 10)
	var good []byte
	for _, a := range []ask{{verb: wantBlock, rank: 3, cid: list[0].Cid}, {verb: wantHave, cid: list[1].Cid}, {verb: wantNews, rank: 1, cid: list[0].Cid}, {verb: wantCancel, id: 300}} {
		good = appendAsk(good, a)
		f.Add(good)
	}
	f.Add([]byte{0, 0, 0x55})
	f.Add([]byte{2})
	f.Add([]byte{2, 0x80, 0x00})
	f.Add([]byte{7, 7, 7})
	f.Fuzz(func(t *testing.T, body []byte) {
		asks, err := parseAsks(body)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("parse: %v", err)
			}
			return
		}
		var again []byte
		for _, a := range asks {
			again = appendAsk(again, a)
			if a.verb != wantCancel && !IsWantable(a.cid) {
				t.Errorf("a want of %s", a.cid)
			}
		}
		if !bytes.Equal(again, body) {
			t.Errorf("%x became %x", body, again)
		}
		if err := newQueue(nil).add(asks); err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("queue: %v", err)
		}
	})
}

func TestHostileRequests(t *testing.T) {
	for name, sent := range map[string][]byte{
		"too large":         {0x81, 0x80, 0x04},
		"unknown entry":     {1, 9},
		"half a want":       {3, 0, 0, 0x55},
		"no rank":           {1, 0},
		"long form":         {0x80, 0x00},
		"cancel of nothing": {2, 2, 0},
		"cancel of none":    {1, 2},
		"identity cid":      {4, 0, 0, 0x55, 0},
	} {
		r := bufio.NewReader(bytes.NewReader(sent))
		asks, err := readRequest(r, make([]byte, maxRequest))
		if err == nil {
			err = newQueue(nil).add(asks)
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, want ErrProtocol", name, err)
		}
	}
	r := bufio.NewReader(bytes.NewReader([]byte{4, 0}))
	if _, err := readRequest(r, make([]byte, maxRequest)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a request: %v", err)
	}
}
