package layer

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSpecExample holds the example of the specification to the code.
func TestSpecExample(t *testing.T) {
	spec, err := os.ReadFile("../spec/layer.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```index\n(.*?)```").FindSubmatch(spec)
	if block == nil {
		t.Fatal("spec/layer.md has no example of an index")
	}
	// The bytes of a line end where two spaces or more begin.
	hexBytes := regexp.MustCompile(`^ *((?:[0-9a-f]{2} )+)`)
	var digits strings.Builder
	for _, line := range strings.Split(string(block[1]), "\n") {
		for _, m := range hexBytes.FindAllStringSubmatch(line+" ", 1) {
			digits.WriteString(strings.ReplaceAll(m[1], " ", ""))
		}
	}
	raw, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	x, err := DecodeIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	a, b := text("bin/a", "hello"), hard("bin/b", "bin/a")
	d := dir("bin")
	a.sec, b.sec, d.sec = 1, 1, 1
	b.mode = 0o644
	want, err := EncodeIndex(index(t, d, a, b))
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(raw) {
		t.Errorf("the example is\n%x\nwant\n%x\n%s", raw, want, list(x))
	}
}
