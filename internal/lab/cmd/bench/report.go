package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/bench/report"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// folders are where the document's parts are.
type folders struct {
	results, notes, out string
}

func reportCommand() *cobra.Command {
	var f folders
	c := &cobra.Command{
		Use:   "report",
		Short: "Write the document of the results, with its charts",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			files, err := document(f)
			if err != nil {
				return err
			}
			return files.Save(f.out)
		},
	}
	c.Flags().StringVar(&f.results, "results", filepath.Join("bench", "results"), "folder of the reports")
	c.Flags().StringVar(&f.notes, "notes", notes, "folder of SCENARIO.md: why ipcs loses where it does")
	c.Flags().StringVar(&f.out, "out", "docs", "folder of the document")
	return c
}

// document makes it of the scenarios, the results and the notes.
func document(f folders) (report.Files, error) {
	link, err := relative(f.out, f.results)
	if err != nil {
		return nil, err
	}
	in := report.Input{Notes: map[string]string{}, Results: link}
	for _, u := range bench.ToCome() {
		in.Unbuilt = append(in.Unbuilt, report.Unbuilt{Title: u.Title, Reason: u.Reason})
	}
	if in.Reports, err = result.Load(f.results); err != nil {
		return nil, err
	}
	for _, s := range bench.Scenarios() {
		section := report.Section{Name: s.Name, Title: s.Title, About: s.About, Systems: s.Systems, Main: s.Main}
		for _, c := range s.Cases {
			section.Cases = append(section.Cases, report.Case{
				Name: c.Name, Image: c.Image, Before: c.Before, Command: c.Command, Count: c.Count,
			})
		}
		in.Sections = append(in.Sections, section)
		note, err := os.ReadFile(filepath.Join(f.notes, s.Name+".md"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		in.Notes[s.Name] = string(note)
	}
	for _, s := range system.All() {
		in.Systems = append(in.Systems, report.System{Name: s.Name(), About: s.About()})
	}
	return report.Render(in)
}

// relative is how a document in one folder names another, whichever way the two are given.
func relative(from, to string) (string, error) {
	from, err1 := filepath.Abs(from)
	to, err2 := filepath.Abs(to)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	link, err := filepath.Rel(from, to)
	return filepath.ToSlash(link), err
}
