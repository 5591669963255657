package tuning

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
)

const (
	// profiled is how long both sides are profiled.
	profiled = 15 * time.Second
	// shown is how many functions a table has.
	shown = 12
	// most is the share of samples, in percent, above which a function says nothing.
	most = 45
)

// hotspots profiles both sides while the whole set is pulled again and again.
func (s *study) hotspots(ctx context.Context) (tables []Table, err error) {
	dir, err := os.MkdirTemp("", "tuning-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	err = s.withKubo(ctx, func(k *lab.Kubo) error {
		own, theirs := filepath.Join(dir, "client"), filepath.Join(dir, "kubo")
		if err := s.profile(ctx, k, own, theirs); err != nil {
			return err
		}
		for _, of := range []struct{ name, title, file string }{
			{"hotspots-client", "The client (this program)", own}, {"hotspots-kubo", "Kubo", theirs},
		} {
			t := Table{Name: of.name, Title: of.title + ", share of its samples:", Head: []string{"most in themselves", "", "most with what they call", ""}}
			flat, err := top(ctx, of.file)
			if err != nil {
				return err
			}
			sums, err := top(ctx, of.file, "-cum")
			if err != nil {
				return err
			}
			for i := range min(shown, len(flat), len(sums)) {
				t.Rows = append(t.Rows, []string{flat[i].name, flat[i].flat, sums[i].name, sums[i].sum})
			}
			tables = append(tables, t)
		}
		return nil
	})
	return tables, err
}

func (s *study) profile(ctx context.Context, k *lab.Kubo, own, theirs string) error {
	file, err := os.Create(own)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return profileKubo(gctx, k, theirs) })
	group.Go(func() error {
		for start := time.Now(); time.Since(start) < profiled+time.Second; {
			if _, err := pull(gctx, k.API, k, chosen, leaves(s.set.files)); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

func profileKubo(ctx context.Context, k *lab.Kubo, to string) error {
	client := unixClient(strings.TrimPrefix(k.API, "/unix"), 1)
	defer client.CloseIdleConnections()
	resp, err := ask(ctx, client, http.MethodGet, fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(profiled.Seconds())))
	if err != nil {
		return fmt.Errorf("profile Kubo: %w", err)
	}
	defer resp.Body.Close()
	file, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, resp.Body)
	return errors.Join(err, file.Close())
}

// topLine is a line of go tool pprof -top: flat, its share, the sum, with calls, that share, name.
var topLine = regexp.MustCompile(`^\s*[\d.]+[a-z]*\s+([\d.]+%)\s+[\d.]+%\s+[\d.]+[a-z]*\s+([\d.]+%)\s+(.+?)( \(inline\))?$`)

// A spot is a function, with its share of the samples, without what it calls and with that.
type spot struct{ name, flat, sum string }

// top lists the functions that most samples of a profile are in. With -cum, which counts what
// they call, those are left out that nearly all samples are in, and the runtime's, which are called from
// everywhere.
func top(ctx context.Context, file string, options ...string) ([]spot, error) {
	args := append([]string{"tool", "pprof", "-top", "-nodecount=100"}, append(options, file)...)
	out, err := lab.Output(exec.CommandContext(ctx, "go", args...))
	if err != nil {
		return nil, err
	}
	var spots []spot
	for line := range strings.Lines(out) {
		m := topLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		share, err := strconv.ParseFloat(strings.TrimSuffix(m[2], "%"), 64)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		if len(options) == 0 || share < most && !strings.HasPrefix(m[3], "runtime.") && !strings.Contains(m[3], "internal/runtime") {
			spots = append(spots, spot{"`" + m[3] + "`", m[1], m[2]})
		}
	}
	if len(spots) == 0 {
		return nil, fmt.Errorf("no functions in\n%s", out)
	}
	return spots, nil
}
