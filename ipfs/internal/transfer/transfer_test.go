package transfer

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// check holds answers to what was wanted.
func check(t *testing.T, answers []Answer, want []ipfs.Block) {
	t.Helper()
	data := map[cid.Cid][]byte{}
	for _, b := range want {
		data[b.Cid] = b.Data
	}
	for _, a := range answers {
		if a.State != Sent || !bytes.Equal(a.Block.Data, data[a.Cid]) || a.Block.Check() != nil {
			t.Errorf("block %s: state %d, %d bytes", a.Cid, a.State, len(a.Block.Data))
		}
		delete(data, a.Cid)
	}
	if len(data) > 0 {
		t.Errorf("%d blocks were not answered", len(data))
	}
}

func TestSmallBlocksShareFrames(t *testing.T) {
	list := text(t, 400, 3000)
	store := newMemory(list...)
	s := connect(t, store)
	s.want(t, wants(list, 1)...)
	got, frames := s.answers(t, len(list))
	check(t, got, list)
	if frames > 20 {
		t.Errorf("%d blocks of 3,000 bytes came in %d frames", len(list), frames)
	}
	in, out := s.received.Counts(), s.server.Sent()
	if in.Blocks != 400*3000 || in.Wire == 0 || in.Wire > in.Blocks/4 || in != out {
		t.Errorf("received %+v, sent %+v", in, out)
	}
}

func TestLargeBlocksAreKeptCompressed(t *testing.T) {
	list := append(text(t, 3, 1<<20), noise(t, 2, 1<<20)...)
	store := newMemory(list...)
	s := connect(t, store)
	for round := range 2 {
		s.want(t, wants(list, 0)...)
		got, _ := s.answers(t, len(list))
		check(t, got, list)
		if len(store.forms) != 3 {
			t.Errorf("%d forms are kept, want those of the blocks that compress", len(store.forms))
		}
		for _, frame := range store.forms {
			if cap(frame) > len(frame)+len(frame)/4 {
				t.Errorf("a form of %d bytes is in a buffer of %d", len(frame), cap(frame))
			}
		}
		if gets := store.gets; gets != 5+2*round {
			t.Errorf("%d blocks were read in %d rounds", gets, round+1)
		}
	}
}

// TestCompressedAheadIsClipped, as what is compressed for a want is.
func TestCompressedAheadIsClipped(t *testing.T) {
	codec, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{40_000, 100_000, 1 << 20} {
		for _, b := range text(t, 1, size) {
			if frame := codec.Compress(b.Data); frame == nil || cap(frame) > len(frame)+len(frame)/4 {
				t.Errorf("a form of %d bytes is in a buffer of %d", len(frame), cap(frame))
			}
		}
	}
}

func TestAbsentAndHere(t *testing.T) {
	list := text(t, 4, 500)
	s := connect(t, newMemory(list[:2]...))
	s.want(t, Want{Cid: list[0].Cid}, Want{Cid: list[1].Cid, Have: true}, Want{Cid: list[2].Cid}, Want{Cid: list[3].Cid, Have: true})
	got, _ := s.answers(t, 4)
	states := map[cid.Cid]State{}
	for _, a := range got {
		states[a.Cid] = a.State
	}
	for i, want := range []State{Sent, Here, Absent, Absent} {
		if states[list[i].Cid] != want {
			t.Errorf("block %d: state %d, want %d", i, states[list[i].Cid], want)
		}
	}
}

// TestRanks wants a block that somebody waits for behind a list that nobody does.
func TestRanks(t *testing.T) {
	list, urgent := noise(t, 40, 100_000), noise(t, 1, 5000)
	store := newMemory(append(list, urgent...)...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, wants(list, 3)...)
	s.want(t, wants(urgent, 0)...)
	s.want(t, Want{Cid: text(t, 1, 9)[0].Cid, Rank: 3, Have: true}) // the server has taken it when it reads this
	close(store.gate)
	s.answers(t, 42)
	if i := slices.Index(store.begun, urgent[0].Cid); i < 0 || i > preparers {
		t.Errorf("it was read as number %d", i)
	}
}

// TestQuestionsGoFirst asks whether a block is there behind a long list of others of its rank.
func TestQuestionsGoFirst(t *testing.T) {
	list := noise(t, 41, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, wants(list[:40], 3)...)
	s.want(t, Want{Cid: list[40].Cid, Rank: 3, Have: true})
	s.want(t, Want{Cid: text(t, 1, 9)[0].Cid, Rank: 3, Have: true}) // the server has taken the question when it reads this
	close(store.gate)
	got, _ := s.answers(t, 42)
	// Whoever has taken it may be overtaken by the other, but not for long.
	if i := slices.IndexFunc(got, func(a Answer) bool { return a.State == Here }); i < 0 || i > len(list)/2 {
		t.Errorf("it was answered as number %d", i)
	}
}

func TestCancel(t *testing.T) {
	list := noise(t, 10, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, wants(list, 0)...)
	for _, b := range list[5:] {
		s.want(t, Want{Cid: b.Cid, Cancel: true})
	}
	s.want(t, Want{Cid: list[9].Cid}) // after all
	close(store.gate)
	got, _ := s.answers(t, 6)
	check(t, got, append(list[:5:5], list[9]))
	if store.gets > 6+preparers {
		t.Errorf("%d blocks were read for 6 that were wanted", store.gets)
	}
}

// TestNothingStarves wants a block that nobody waits for before a long list that somebody does.
func TestNothingStarves(t *testing.T) {
	list := noise(t, 60, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, append(wants(list[:1], 3), wants(list[1:], 0)...)...)
	close(store.gate)
	s.answers(t, len(list))
	if i := slices.Index(store.begun, list[0].Cid); i < 0 || i > agedEvery+preparers {
		t.Errorf("it was read as number %d", i)
	}
}

// TestCancelsAreAnsweredNext cancels a want that others are more urgent than: it no longer counts
// as open after a few frames.
func TestCancelsAreAnsweredNext(t *testing.T) {
	list := noise(t, 10, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, append(wants(list[:9], 0), wants(list[9:], 3)...)...)
	s.want(t, Want{Cid: list[9].Cid, Cancel: true})
	s.want(t, Want{Cid: text(t, 1, 9)[0].Cid, Have: true}) // the server has read the cancel when it reads this
	close(store.gate)
	for i := 0; len(<-s.frames) > 0; i++ { // of the cancelled one is nothing to say
		if i > 2*preparers {
			t.Fatal("the cancel still has no answer")
		}
	}
}

func TestTwiceIsOnce(t *testing.T) {
	list := noise(t, 1, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, wants(list, 0)...)
	s.want(t, wants(list, 0)...)
	close(store.gate)
	s.answers(t, 1)
	if store.gets != 1 {
		t.Errorf("the block was sent %d times", store.gets)
	}
}

// TestMoreUrgentNow wants the last block of a list anew, at once.
func TestMoreUrgentNow(t *testing.T) {
	list := noise(t, 12, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	s := connect(t, store)
	s.want(t, wants(list, 2)...)
	s.want(t, wants(list[11:], 0)...)
	s.want(t, wants(list[11:], 1)...)                      // it is more urgent already
	s.want(t, Want{Cid: text(t, 1, 9)[0].Cid, Have: true}) // the server has read the others then
	close(store.gate)
	got, _ := s.answers(t, len(list)+1)
	check(t, slices.DeleteFunc(got, func(a Answer) bool { return a.State == Absent }), list)
	if i := slices.Index(store.begun, list[11].Cid); i < 0 || i > preparers || store.gets != len(list) {
		t.Errorf("it was read as number %d, of %d", i, store.gets)
	}
}

// TestTooManyWants ends the stream of who wants without end.
func TestTooManyWants(t *testing.T) {
	near, far := net.Pipe()
	store := newMemory()
	store.gate = make(chan struct{}) // nothing is answered
	done := make(chan error, 1)
	go func() { done <- NewServer(store, nil, newCodec(t)).Serve(t.Context(), pipe{far}) }()
	client := NewClient(near, newCodec(t), new(Received))
	var err error
	for i := 0; err == nil && i < MaxUnanswered+2; i++ {
		clear(client.open) // it counts, too
		err = client.Send(wants(text(t, 1, 10+i), 0))
	}
	if err := <-done; !errors.Is(err, ErrProtocol) {
		t.Errorf("Serve = %v, want ErrProtocol", err)
	}
	if err == nil {
		t.Error("the stream is still open")
	}
	near.Close()
}

func TestClientBoundsItsWants(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	defer near.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, err := far.Read(buf); err != nil {
				return
			}
		}
	}()
	client := NewClient(near, newCodec(t), new(Received))
	var err error
	for i := range MaxUnanswered {
		if err = client.Send(wants(text(t, 1, 20+i), 0)); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := client.Send(wants(text(t, 1, 5), 0)); !errors.Is(err, ErrBusy) {
		t.Errorf("one more want: %v", err)
	}
}
