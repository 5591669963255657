package kubo_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// TestPinThatGetsNoFurther has a daemon pin as Kubo does, which says twice a second how far it is,
// and waits for blocks that are nowhere for ever.
func TestPinThatGetsNoFurther(t *testing.T) {
	const timeout = 300 * time.Millisecond
	say := func(w http.ResponseWriter, text string) {
		_, _ = io.WriteString(w, text+"\n")
		_ = http.NewResponseController(w).Flush()
	}
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   string // in the error
		is     error
	}{
		"done": {func(w http.ResponseWriter, _ *http.Request) {
			for _, n := range []string{`{"Progress":1}`, `{"Progress":2}`, `{"Progress":3}`, `{"Pins":["x"]}`} {
				time.Sleep(timeout / 2)
				say(w, n)
			}
		}, "", nil},
		"slow, and silent": {func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(3 * timeout)
			say(w, `{"Pins":["x"]}`)
		}, "", nil},
		"stuck": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				say(w, `{"Progress":7}`)
				time.Sleep(timeout / 10)
			}
		}, "a block of the DAG is missing", ipfs.ErrNotFound},
		"fails": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, `{"Progress":7}`)
			say(w, `{"Message":"disk full","Code":0,"Type":"error"}`)
		}, "disk full", nil},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) { say(w, `{"Progress":7}`) }, "broke off", nil},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				tc.answer(w, r)
			}))
			c, err := kubo.NewWith(addr, kubo.Options{Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.Pin(t.Context(), ipfs.Pin{Root: ipfstest.Blocks(t, 1, 10)[0].Cid, Name: "name"})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
