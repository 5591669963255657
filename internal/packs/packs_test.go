package packs_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/packs"
	"github.com/hinshun/ipcs/ipfs"
)

func opened(t testing.TB, dir string) *packs.Packs {
	t.Helper()
	p, err := packs.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens the directory, and returns when all that is there is known.
func open(t testing.TB, dir string, room int64) *packs.Packs {
	t.Helper()
	p := opened(t, dir)
	p.Start(fixed(room))
	<-p.Scanned()
	return p
}

func fixed(room int64) packs.Room { return func() (int64, bool) { return room, true } }

// await waits until something is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never comes to this: " + what)
		}
	}
}

func written(p *packs.Packs) func() bool { return func() bool { return p.Waiting() == 0 } }

// name returns the CID of a block, and what stands for its compressed form.
func name(t testing.TB, i, size int) (cid.Cid, []byte) {
	t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, fmt.Append(nil, "block", i))
	if err != nil {
		t.Fatal(err)
	}
	return b.Cid, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, size/2)
}

// keep keeps forms of n blocks, and closes.
func keep(t testing.TB, p *packs.Packs, n, size int) {
	t.Helper()
	for i := range n {
		c, frame := name(t, i, size)
		p.Keep(c, frame, 2*size)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// count says of how many of n blocks there are forms, each of them right.
func count(t testing.TB, p *packs.Packs, n, size int) (have int) {
	t.Helper()
	for i := range n {
		c, want := name(t, i, size)
		frame, of, ok := p.Form(c)
		if !ok {
			continue
		}
		have++
		if !bytes.Equal(frame, want) || of != 2*size {
			t.Errorf("form %d has %d bytes for %d, and is not what was kept", i, len(frame), of)
		}
	}
	return have
}

func TestKeptOverARestart(t *testing.T) {
	dir := t.TempDir()
	keep(t, open(t, dir, math.MaxInt64), 100, 1000)
	for range 2 { // what is there is not kept twice
		p := open(t, dir, math.MaxInt64)
		if n := count(t, p, 101, 1000); n != 100 {
			t.Errorf("%d forms are there, want 100", n)
		}
		if got := p.Bytes(); got != 100*(1000+44) {
			t.Errorf("%d bytes", got)
		}
		keep(t, p, 100, 1000)
	}
}

func TestRoomIsKept(t *testing.T) {
	const size, n = 10_000, 200
	dir := t.TempDir()
	p := opened(t, dir)
	p.SetPackSize(600_000)
	p.Start(fixed(1_500_000))
	for i := range n {
		c, frame := name(t, i, size)
		p.Keep(c, frame, 2*size)
		await(t, "what is kept is written", written(p))
		if p.Bytes() > 1_500_000 {
			t.Fatalf("%d bytes after %d forms", p.Bytes(), i)
		}
	}
	if have := count(t, p, n, size); have < 80 || have >= 150 {
		t.Errorf("%d forms are left", have)
	}
	if c, _ := name(t, n-1, size); !has(p, c) {
		t.Error("the last is gone")
	}
	before := p.Bytes()
	if freed := p.Drop(1); freed < 600_000 || p.Bytes() != before-freed {
		t.Errorf("%d bytes were freed of %d, and %d are left", freed, before, p.Bytes())
	}
	if p.Drop(math.MaxInt64); p.Bytes() != 0 || count(t, p, n, size) != 0 {
		t.Errorf("%d bytes are left of all", p.Bytes())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left: %v", len(left), err)
	}
	keep(t, p, 3, size) // it goes on
	if p = open(t, dir, math.MaxInt64); count(t, p, n, size) != 3 {
		t.Error("what is kept after all was dropped is lost")
	}
	p.Close()
}

func has(p *packs.Packs, c cid.Cid) bool { _, _, ok := p.Form(c); return ok }

func TestNoRoom(t *testing.T) {
	p := open(t, t.TempDir(), 0)
	keep(t, p, 10, 100)
	if p.Bytes() != 0 {
		t.Errorf("%d bytes are kept in no room", p.Bytes())
	}
}

// TestDamage flips each byte, and cuts off each number of them, and finds right forms only.
func TestDamage(t *testing.T) {
	const n, size = 3, 10
	dir := t.TempDir()
	keep(t, open(t, dir, math.MaxInt64), n, size)
	path := filepath.Join(dir, "0.pack")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	look := func(data []byte, least int) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		p := open(t, dir, math.MaxInt64)
		defer p.Close()
		if have := count(t, p, n, size); have < least {
			t.Errorf("%d forms are left, want %d", have, least)
		}
	}
	for i := 0; i < len(good); i += 3 {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		look(bad, i/(44+size))
		look(good[:i], i/(44+size))
	}
	look(append(bytes.Clone(good), 1, 2, 3), n)
}

// FuzzOpen opens what may be on a disk.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	keep(f, open(f, dir, math.MaxInt64), 3, 10)
	good, err := os.ReadFile(filepath.Join(dir, "0.pack"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:70])
	f.Add(append(bytes.Clone(good[:40]), 0xff, 0xff, 0xff, 0xff))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "7.pack"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		p := open(t, dir, math.MaxInt64)
		count(t, p, 3, 10)
		keep(t, p, 4, 10)
		p = open(t, dir, math.MaxInt64)
		defer p.Close()
		if c, _ := name(t, 3, 10); !has(p, c) {
			t.Error("what is kept beside damage is lost")
		}
	})
}

// TestConcurrent keeps, reads and drops at once.
func TestConcurrent(t *testing.T) {
	const n, size = 400, 2_000
	p := opened(t, t.TempDir())
	p.SetPackSize(100_000)
	p.Start(fixed(math.MaxInt64))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := range n {
				c, frame := name(t, i, size)
				p.Keep(c, frame, 2*size)
			}
		})
		wg.Go(func() { count(t, p, n, size) })
	}
	wg.Go(func() {
		for range 20 {
			p.Drop(1)
			time.Sleep(time.Millisecond)
		}
	})
	wg.Wait()
	count(t, p, n, size)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
