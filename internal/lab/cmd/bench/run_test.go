package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// The first run there is, and the first of a schema, have nothing to be compared with.
func TestCompareWith(t *testing.T) {
	now := t.TempDir()
	if err := (&result.Report{Schema: result.Schema, Scenario: "s"}).Save(now); err != nil {
		t.Fatal(err)
	}
	empty, other, broken := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{other: `{"schema": 0}`, broken: `{`} {
		if err := os.WriteFile(filepath.Join(dir, "s.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct{ earlier, want string }{
		"absent":         {filepath.Join(empty, "absent"), "nothing to compare with yet"},
		"empty":          {empty, "nothing to compare with yet"},
		"another schema": {other, "nothing to compare with yet"},
		"the same":       {now, "0 figures compared"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := compareWith(&out, test.earlier, now); err != nil || !strings.Contains(out.String(), test.want) {
				t.Errorf("%v, want %q in %s", err, test.want, &out)
			}
		})
	}
	if err := compareWith(&bytes.Buffer{}, broken, now); err == nil {
		t.Error("no error for reports that cannot be read")
	}
}

// A run that measured nothing leaves the document as it was.
func TestWriteDocumentOfNothing(t *testing.T) {
	out := t.TempDir()
	if err := writeDocument(folders{results: filepath.Join(out, "absent"), out: out}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("it wrote %v (%v)", left, err)
	}
}
