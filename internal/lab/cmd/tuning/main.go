// Command tuning measures how fast Kubo is as a node, and writes the tables of docs/tuning.md: see
// package tuning.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/tuning"
)

func main() {
	cache := flag.String("cache", ".cache", "folder of the lab's tools, images and machines")
	bin := flag.String("bin", "bin", "folder of ipcs-snapshotter")
	only := flag.String("only", "", "tables to measure, a regular expression: "+strings.Join(tuning.Names(), ", "))
	rounds := flag.Int("rounds", 3, "how often each variant is measured")
	write := flag.String("write", "", "document whose tables are replaced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *cache, *bin, *only, *rounds, *write)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tuning:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cache, bin, only string, rounds int, write string) error {
	tables, err := tuning.Run(ctx, tuning.Options{
		Lab:    lab.Options{Dir: filepath.Join(cache, "run"), Tools: filepath.Join(cache, "bin"), Bin: bin},
		Images: filepath.Join(cache, "images"), Only: only, Rounds: rounds,
		Log: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	for _, t := range tables {
		fmt.Printf("%s\n", t.Markdown())
	}
	if write == "" {
		return nil
	}
	text, err := os.ReadFile(write)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if text, err = replace(text, t); err != nil {
			return fmt.Errorf("%s: %w", write, err)
		}
	}
	return os.WriteFile(write, text, 0o644)
}

// replace puts a table between its marks.
func replace(text []byte, t tuning.Table) ([]byte, error) {
	begin, end := "<!-- table "+t.Name+" -->\n", "<!-- end -->\n"
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !ok || !ended {
		return nil, errors.New("no place for the table " + t.Name)
	}
	return bytes.Join([][]byte{before, []byte(begin), []byte(t.Markdown()), []byte(end), after}, nil), nil
}
