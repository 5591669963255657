package compare_test

import (
	"bytes"
	"encoding/csv"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hinshun/ipcs/internal/compare"
)

// TestText writes tables that fit, and steer no terminal.
func TestText(t *testing.T) {
	var read atomic.Int64
	hostile := newLayout(t).layer(file{name: "\x1b[2Jlarge\n", data: strings.Repeat("x", 1000)})
	refs := append(three(t), hostile.ref())
	for range 3 {
		refs = append(refs, three(t)...)
	}
	r := mustCompare(t, options(&read, refs...))
	for _, width := range []int{0, 60, 80, 100} {
		var out bytes.Buffer
		if err := r.WriteText(&out, compare.Style{Width: width}); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if strings.ContainsAny(line, "\x1b\r") {
				t.Errorf("a line steers the terminal: %q", line)
			}
			if n := len([]rune(line)); width > 0 && n > width {
				t.Errorf("a line of %d on a terminal of %d: %q", n, width, line)
			}
		}
		if width == 0 && !strings.Contains(out.String(), `\x1b[2Jlarge\n`) {
			t.Errorf("the largest file is not there:\n%s", out.String())
		}
	}
	var out bytes.Buffer
	if err := r.WriteCSV(&out); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(rows) != 1+len(r.Pairs)*len(r.Levels) {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// TestPage writes a page that runs nothing of what images say.
func TestPage(t *testing.T) {
	var read atomic.Int64
	hostile := newLayout(t).layer(file{name: "</script><script>alert(1)</script>", data: strings.Repeat("x", 1000)})
	r := mustCompare(t, options(&read, hostile.ref()))
	r.Images[0].Ref = "</script><img src=x onerror=alert(2)>"
	var out bytes.Buffer
	if err := r.WriteHTML(&out); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script>alert", "<img", "http://", "https://"} {
		if text := strings.ReplaceAll(out.String(), "http://www.w3.org/2000/svg", ""); strings.Contains(text, bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	if strings.Count(out.String(), "</script>") != 1 {
		t.Error("the script of the page ends where an image says so")
	}
}

// TestNames leaves out what all references begin with.
func TestNames(t *testing.T) {
	for _, tt := range []struct{ refs, want []string }{
		{[]string{"registry.example/a/x:1", "registry.example/a/y:1"}, []string{"x:1", "y:1"}},
		{[]string{"registry.example/a/x:1", "registry.example/ab/y:1"}, []string{"a/x:1", "ab/y:1"}},
		{[]string{"oci:x", "registry.example/y"}, []string{"oci:x", "registry.example/y"}},
		{[]string{"oci:/a/x"}, []string{"x"}},
		{[]string{"oci:/a/x", "oci:/a/x"}, []string{"x (linux/amd64)", "x (linux/arm64)"}},
	} {
		r := &compare.Report{}
		for i, ref := range tt.refs {
			r.Images = append(r.Images, compare.Image{Ref: ref, Platform: []string{"linux/amd64", "linux/arm64"}[i%2]})
		}
		if got := r.Names(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %q", tt.refs, got)
		}
	}
}

// TestDocument finds every field of the report in the page that explains it.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/compare.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	fields(reflect.TypeFor[compare.Report](), names)
	if len(names) < 30 {
		t.Errorf("only %d fields were found", len(names))
	}
	for name := range names {
		if !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), "`"+name+"[]`") {
			t.Errorf("docs/compare.md does not have %s", name)
		}
	}
}

// fields notes the names of all fields below a type.
func fields(of reflect.Type, names map[string]bool) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		fields(of.Elem(), names)
	case reflect.Struct:
		for i := range of.NumField() {
			f := of.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				names[name] = true
			}
			if f.IsExported() {
				fields(f.Type, names)
			}
		}
	}
}
