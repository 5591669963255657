//go:build linux

package relay

import (
	"bytes"
	"os"
	"reflect"
	"testing"
)

func TestGreeting(t *testing.T) {
	nodes := []Node{{ID: 1 << 40, Parent: 7, Name: "name", Size: 1 << 50, Lookups: 3}, {ID: 2}}
	got, err := readGreeting(bytes.NewReader(greeting(nodes)))
	if err != nil || !reflect.DeepEqual(got, nodes) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestManyForgotten has a relay pass on more forgotten nodes than fit a request's buffer.
func TestManyForgotten(t *testing.T) {
	const count = 60_000
	m := make([]byte, requestHeader+8, requestHeader+8+16*count)
	order.PutUint32(m[4:], opBatchForget)
	order.PutUint32(m[requestHeader:], count)
	ns := make(nodes)
	for i := range uint64(count) {
		ns[i] = Node{ID: i, Lookups: 2}
		m = order.AppendUint64(order.AppendUint64(m, i), i%2+1)
	}
	order.PutUint32(m, uint32(len(m)))
	got, err := readMessage(bytes.NewReader(m), make([]byte, smallMessage), requestHeader)
	if err != nil || !bytes.Equal(got, m) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(m), err)
	}
	if ns.forgotten(in(got)); len(ns) != count/2 {
		t.Errorf("%d nodes are left", len(ns))
	}
	order.PutUint32(m, maxMessage+1)
	if _, err := readMessage(bytes.NewReader(m), make([]byte, smallMessage), requestHeader); err == nil {
		t.Error("a message that is too long was read")
	}
}

// FuzzGreeting: what is read is written as it was.
func FuzzGreeting(f *testing.F) {
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzGreeting"); err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		nodes, err := readGreeting(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := greeting(nodes); !bytes.HasPrefix(b, again) {
			t.Fatalf("%x is written as %x", b, again)
		}
		state, err := ReadState(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if n, err := state.WriteTo(&again); err != nil || int(n) != again.Len() || !bytes.HasPrefix(b, again.Bytes()) {
			t.Fatalf("the state %x is written as %x, %v", b, again.Bytes(), err)
		}
		canResend(state.Init)
	})
}

// FuzzNodes: no message of the kernel or of a daemon makes more of it than there is.
func FuzzNodes(f *testing.F) {
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzNodes"); err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	f.Fuzz(func(t *testing.T, request, reply []byte) {
		if len(request) < requestHeader || len(reply) < replyHeader {
			return
		}
		ns := make(nodes)
		undo := ns.answered(in(request), reply)
		if len(ns) > 1 {
			t.Fatalf("%d nodes of one answer", len(ns))
		}
		undo()
		if len(ns) > 0 {
			t.Fatal("an answer that was undone is remembered")
		}
		ns.answered(in(request), reply)
		ns.forgotten(in(request))
		_ = in(request).interrupted()
	})
}
