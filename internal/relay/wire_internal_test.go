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
