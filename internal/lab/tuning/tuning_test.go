package tuning

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// TestDocumentHasAllTables finds a place for each table in docs/tuning.md, and a figure in it.
func TestDocumentHasAllTables(t *testing.T) {
	text, err := os.ReadFile("../../../docs/tuning.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"requests-large", "requests-small", "export-large", "export-small", "remote-ipcs", "remote-kubo",
		"datastores", "hotspots-client", "hotspots-kubo",
	} {
		_, rest, ok := strings.Cut(string(text), "<!-- table "+name+" -->\n")
		table, _, ended := strings.Cut(rest, "<!-- end -->\n")
		if !ok || !ended || strings.Count(table, "\n|") < 4 {
			t.Errorf("the table %s is not there, or empty", name)
		}
	}
}

func TestMarkdown(t *testing.T) {
	table := Table{Name: "n", Title: "What it is:", Head: []string{"a", "b"}, Rows: [][]string{{"1", "2"}, {"3", "4"}}}
	const want = "What it is:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"
	if got := table.Markdown(); got != want {
		t.Errorf("%q", got)
	}
}

// TestRatios compares two variants whose speeds are known, with rounds that differ.
func TestRatios(t *testing.T) {
	speeds := map[string][]time.Duration{"slow": {time.Second, 2 * time.Second, 4 * time.Second}, "fast": {500 * time.Millisecond, time.Second, time.Second}}
	measured := map[string]int{}
	s := &study{Options: Options{Rounds: 3, Log: t.Logf}}
	var variants []variant
	for _, name := range []string{"slow", "fast"} {
		variants = append(variants, variant{name, func(ctx context.Context) (sample, error) {
			took := speeds[name][measured[name]]
			measured[name]++
			return sample{bytes: 10e6, blocks: 10, took: took, client: time.Second, kubo: 2 * time.Second}, nil
		}})
	}
	table, err := s.speeds(t.Context(), "n", "t", "what", variants)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"slow 5.0 5.0 1.00 (1.00 to 1.00) 100 200", "fast 10 10 2.00 (2.00 to 4.00) 100 200"} {
		if got := strings.Join(table.Rows[i], " "); got != want {
			t.Errorf("row %q, want %q", got, want)
		}
	}
}

func TestTopLine(t *testing.T) {
	for line, want := range map[string]string{
		"     1.20s 24.00% 24.00%      1.20s 24.00%  runtime.memmove":                             "24.00% 24.00% runtime.memmove",
		"         0     0% 63.42%     5640ms 46.42%  net/http.(*conn).serve":                      "0% 46.42% net/http.(*conn).serve",
		"      10ms 0.082% 99.9%       20ms  0.16%  runtime.(*mspan).base (inline)":               "0.082% 0.16% runtime.(*mspan).base",
		"Showing nodes accounting for 5000ms, 41.15% of 12150ms total":                            "",
		"      flat  flat%   sum%        cum   cum%":                                              "",
		"     0.12s  0.99%  9.99%      0.50s  4.12%  github.com/ipfs/go-ipfs-cmds/http.flushCopy": "0.99% 4.12% github.com/ipfs/go-ipfs-cmds/http.flushCopy",
		"         0     0% 50.00%   1.50mins 12.00%  type:.hash.github.com/ipfs/go-cid.Cid":       "0% 12.00% type:.hash.github.com/ipfs/go-cid.Cid",
	} {
		got := ""
		if m := topLine.FindStringSubmatch(line); m != nil {
			got = m[1] + " " + m[2] + " " + m[3]
		}
		if got != want {
			t.Errorf("%q gives %q, want %q", line, got, want)
		}
	}
}
