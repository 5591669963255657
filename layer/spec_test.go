package layer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A fence is a fenced block of the specification.
type fence struct {
	file string
	line int    // of its first line
	info string // the word after the backquotes
	body string
}

func (f fence) String() string { return fmt.Sprintf("%s:%d", f.file, f.line) }

// readFences returns the blocks of all files of the specification that say what they are.
// Without that, they are pseudo-code, which nobody executes.
func readFences(t *testing.T) []fence {
	t.Helper()
	files, err := filepath.Glob("../spec/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no specification: %v", err)
	}
	var out []fence
	for _, file := range files {
		var open *fence
		for i, line := range strings.Split(readText(t, file), "\n") {
			info, mark := strings.CutPrefix(line, "```")
			switch {
			case mark && open == nil:
				open = &fence{file: filepath.Base(file), line: i + 2, info: strings.TrimSpace(info)}
			case mark:
				if open.info != "" {
					out = append(out, *open)
				}
				open = nil
			case open != nil:
				open.body += line + "\n"
			}
		}
		if open != nil {
			t.Fatalf("%s: the block does not end", open)
		}
	}
	return out
}

func readText(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// specText is a file of the specification, in one line.
func specText(t *testing.T, file string) string {
	t.Helper()
	return strings.Join(strings.Fields(readText(t, "../spec/"+file)), " ")
}

// wantText wants the specification to say something in these words.
func wantText(t *testing.T, file, format string, args ...any) {
	t.Helper()
	if words := fmt.Sprintf(format, args...); !strings.Contains(specText(t, file), words) {
		t.Errorf("%s does not say: %s", file, words)
	}
}

// TestSpecExamples executes every example of the specification.
func TestSpecExamples(t *testing.T) {
	kinds := map[string]func(*testing.T, []fence){
		"index": specIndex, "root": specRoot, "node": specNodes, "tar-split": specTarSplit, "abnf": specGrammar, "json": specRecord,
		"apply": specApply, "merge": specMerge, "merge above": specMergeAbove,
	}
	fences := make(map[string][]fence)
	for _, f := range readFences(t) {
		fences[f.info] = append(fences[f.info], f)
		if kinds[f.info] == nil {
			t.Errorf("%s: nobody executes a block of %q", f, f.info)
		}
	}
	for info, execute := range kinds {
		t.Run(info, func(t *testing.T) {
			if len(fences[info]) == 0 {
				t.Fatalf("the specification has no block of %q", info)
			}
			execute(t, fences[info])
		})
	}
}

// only wants one block.
func only(t *testing.T, fences []fence) fence {
	t.Helper()
	if len(fences) != 1 {
		t.Fatalf("%d blocks: %v", len(fences), fences)
	}
	return fences[0]
}

// lines are the lines of a block.
func (f fence) lines() []string { return strings.Split(strings.TrimSuffix(f.body, "\n"), "\n") }

// bytes reads a block of bytes: lines of hex, or of a byte many times, up to the two spaces
// that a comment starts with.
func (f fence) bytes() ([]byte, error) {
	var out []byte
	for i, line := range f.lines() {
		code, _, _ := strings.Cut(strings.TrimLeft(line, " "), "  ")
		b, err := parseBytes(strings.Fields(code))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %q: %w", f.file, f.line+i, code, err)
		}
		out = append(out, b...)
	}
	return out, nil
}

func parseBytes(words []string) ([]byte, error) {
	if len(words) == 3 && words[1] == "*" {
		b, err := hex.DecodeString(words[0])
		n, nerr := strconv.Atoi(words[2])
		if err = errors.Join(err, nerr); err != nil || len(b) != 1 || n < 1 {
			return nil, fmt.Errorf("not a byte many times (%v)", err)
		}
		return bytes.Repeat(b, n), nil
	}
	for _, w := range words {
		if len(w) != 2 {
			return nil, fmt.Errorf("%q is no byte", w)
		}
	}
	return hex.DecodeString(strings.Join(words, ""))
}

// wantBytes compares a block of bytes with what the code makes.
func (f fence) wantBytes(t *testing.T, want []byte) {
	t.Helper()
	got, err := f.bytes()
	if err != nil {
		t.Errorf("%v\nthe block must have the %d bytes\n%s", err, len(want), rows(want))
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: the block has the %d bytes\n%s\nand must have the %d bytes\n%s", f, len(got), rows(got), len(want), rows(want))
	}
}

// rows writes bytes as the specification has them.
func rows(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		n := min(len(b), 16)
		fmt.Fprintf(&out, "% x\n", b[:n])
		b = b[n:]
	}
	return out.String()
}
