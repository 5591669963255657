// Package bench measures ipcs against what people use now, so that anyone can check
// every claim on a machine of their own.
//
// A Scenario is data: a name, cases (an image, a command, a link), the systems that are
// compared, and a function that measures a case with the methods of Run. In every round
// of a case each system is measured once, in an order that changes (see order), and
// ratios are made within rounds (package result). A system that fails in a case is reported as failed
// there and takes no further part in it; the benchmark goes on.
//
// Each case has a lab of its own, which stops, unmounts and removes all it made, also
// when the run is interrupted. Everything runs in one goroutine but what a scenario
// starts and waits for itself: two measurements at once would measure each other.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// A Scenario is one question.
type Scenario struct {
	Name  string // letters, digits and hyphens
	Title string // a short heading
	// About says what is done and what is measured, for the document. Markdown.
	About string
	// Systems are the names of those that take part.
	Systems []string
	// Quick are those that take part in a quick run; none for all.
	Quick []string
	// Everywhere are the systems that are measured over every link; the others are only
	// over the first. None for all.
	Everywhere []string
	// Base is what ratios are to; "" for the first of Systems. It may be something that
	// is no system, as tar is where convert is measured.
	Base string
	// Main are the names of the metrics that the document shows first, with charts; the
	// first one recorded if there are none here.
	Main  []string
	Cases []Case
	// Measure measures one case.
	Measure func(ctx context.Context, r *Run) error
	// Planned names systems or cases that belong here and are not built yet, and why.
	Planned []result.Missing
}

// A Case is one row of a scenario. What a scenario has no use for is zero.
type Case struct {
	Name    string
	Image   string // of package images
	Before  string // image that is on the consumer already
	Command string // as typed to a shell, for the container
	Links   []Link // one after the other; none where no link takes part
	Count   int    // what grows: layers, files, containers, nodes
	Rounds  int    // in a whole run
	Quick   int    // in a quick run; 0 for a case that is no part of it
	// QuickLink is the one of a quick run; none for the first of Links.
	QuickLink Link
	// Only are the systems of the scenario that take part in this case; none for all.
	Only []string
}

// A Link is how a machine is connected.
type Link struct {
	Mbit int           // bandwidth in each direction; 0 where none takes part
	RTT  time.Duration // that is added
	// Wide says that the consumer's own link carries three times as much as each of the others.
	Wide bool
}

// Own is the bandwidth of the consumer's own link.
func (l Link) Own() int {
	if l.Wide {
		return 3 * l.Mbit
	}
	return l.Mbit
}

// Unlimited is a rate that is no limit on today's machines.
const Unlimited = 10_000

func (l Link) String() string {
	s := ""
	switch {
	case l.Mbit == 0:
		return s
	case l.Mbit == Unlimited:
		s = "no limit"
	case l.Mbit >= 1000 && l.Mbit%1000 == 0:
		s = fmt.Sprintf("%d Gbit/s", l.Mbit/1000)
	default:
		s = fmt.Sprintf("%d Mbit/s", l.Mbit)
	}
	if l.RTT > 0 {
		s += fmt.Sprintf(", %d ms", l.RTT.Milliseconds())
	}
	if l.Wide {
		s += ", 3 times at the consumer"
	}
	return s
}

// Scenarios returns all that is measured, in the order of the document.
func Scenarios() []Scenario {
	return []Scenario{
		cold(),
		full(),
		next(),
		threeNodes(),
		noPeers(),
		either(),
		ordinary(),
		fanOut(),
		warm(),
		idle(),
		conversion(),
		restoration(),
		disk(),
		growthLayers(),
		growthFiles(),
		growthContainers(),
	}
}

// A Run is one case that is being measured.
type Run struct {
	Case
	Scenario Scenario
	Systems  []system.System // that can be measured here
	Link     Link            // that is measured now, for what is recorded

	bench *bench
	rec   *result.Recorder
	out   *result.Report
	dead  map[string]bool // systems that failed in this case
}

// Rounds returns how often each system is measured.
func (r *Run) Rounds() int {
	rounds := r.Case.Rounds
	if r.bench.Quick {
		rounds = r.Case.Quick
	}
	if r.bench.Rounds > 0 {
		return min(rounds, r.bench.Rounds)
	}
	return rounds
}

// Log tells whoever watches.
func (r *Run) Log(format string, args ...any) { fmt.Fprintf(r.bench.Log, "    "+format+"\n", args...) }

// Layout makes an image if need be, notes which one it is, and returns its OCI layout.
func (r *Run) Layout(ctx context.Context, image string) (string, error) {
	dir, err := images.Ensure(ctx, filepath.Join(r.bench.Cache, "images"), image, r.Log)
	if err != nil {
		return "", err
	}
	return dir, r.note(image, dir)
}

// Lab opens a lab, calls f, and closes it. Where the case has links the lab has a
// network, whose limits are set later; else all its machines are on loopback.
func (r *Run) Lab(ctx context.Context, f func(l *lab.Lab) error) (err error) {
	rate := 0
	if len(r.Links) > 0 {
		rate = Unlimited
	}
	l, err := lab.Open(ctx, lab.Options{
		Name: r.bench.Lab, Rate: rate, Log: r.Log, Bin: r.bench.Bin,
		Dir: filepath.Join(r.bench.Cache, "run"), Tools: filepath.Join(r.bench.Cache, "bin"),
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errLab, err)
	}
	defer func() { err = errors.Join(err, l.Close(), l.Leftovers()) }()
	return f(l)
}

// Each calls f for every system, and leaves out of all that follows those that fail. It
// returns an error when ctx has ended, when there is no lab, and when the base has failed.
func (r *Run) Each(ctx context.Context, f func(s system.System) error) error {
	return r.each(ctx, r.Systems, f)
}

// Rotate calls f for every round and system, in an order that is another one in each
// round, and is else like Each.
func (r *Run) Rotate(ctx context.Context, f func(round int, s system.System) error) error {
	for round := range r.Rounds() {
		here := slices.DeleteFunc(slices.Clone(r.Systems), func(s system.System) bool { return !r.linked(s) })
		if err := r.each(ctx, order(here, round), func(s system.System) error { return f(round, s) }); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) each(ctx context.Context, systems []system.System, f func(s system.System) error) error {
	for _, s := range systems {
		if r.dead[s.Name()] || !r.linked(s) {
			continue
		}
		err := f(s)
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: %w", s.Name(), err)
		if s.Name() == r.out.Base || errors.Is(err, errLab) {
			return err
		}
		r.dead[s.Name()] = true
		r.missing(s.Name(), err)
	}
	return nil
}

// linked says whether a system is measured over the link of the moment.
func (r *Run) linked(s system.System) bool {
	everywhere := r.Scenario.Everywhere
	return len(everywhere) == 0 || r.bench.Quick || r.Link == (Link{}) || r.Link == r.Links[0] ||
		slices.Contains(everywhere, s.Name())
}

// folders are what an absolute path leads through.
var folders = regexp.MustCompile(`(?:/[\w.+@-]+){2,}/`)

// missing notes in the report that a measurement of this case failed.
func (r *Run) missing(system string, err error) {
	fmt.Fprintf(r.bench.Log, "    FAILED: %v\n", err)
	// Reports are published: where this machine has its files is nobody's business.
	reason := folders.ReplaceAllString(err.Error(), "…/")
	r.out.Missing = append(r.out.Missing, result.Missing{
		Case: r.Name, Link: r.Link.String(), System: system, Reason: reason, Failed: true,
	})
}

// Record notes one figure of a round.
func (r *Run) Record(round int, system string, m result.Metric, value float64) {
	r.rec.Add(round, result.Figure{
		Case: r.Name, Link: r.Link.String(), System: system,
		Metric: m.Name, Unit: m.Unit, Better: m.Better,
	}, value)
}

// EachLink calls f for every link of the case. A quick run is content with one.
func (r *Run) EachLink(f func() error) error {
	links := r.Links
	if r.bench.Quick {
		links = links[:1]
		if r.QuickLink != (Link{}) {
			links = []Link{r.QuickLink}
		}
	}
	for _, r.Link = range links {
		r.Log("--- %s", r.Link)
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// Profile returns the folder for the profiles of one program in one round of this case,
// and "" if none are wanted.
func (r *Run) Profile(program string, round int) string {
	if r.bench.Profiles == "" {
		return ""
	}
	name := fmt.Sprintf("%s-%d", program, round)
	return filepath.Join(r.bench.Profiles, r.Scenario.Name, r.Name, strings.Map(plain, r.Link.String()), name)
}

// plain keeps what is safe in the name of a file.
func plain(c rune) rune {
	if strings.ContainsRune(" /,", c) {
		return '-'
	}
	return c
}

// Options say what to run.
type Options struct {
	Cache    string   // folder of images, programs and machines
	Bin      string   // folder of convert and ipcs-snapshotter
	Results  string   // folder that reports are written to
	Profiles string   // folder for profiles; "" for none
	Lab      string   // name of the labs, for runs beside each other
	Quick    bool     // fewer cases and rounds
	Rounds   int      // at most so many, to see that all works; 0 for what cases say
	Only     []string // scenarios, or SCENARIO/CASE; none for all
	Commit   string   // of ipcs
	Log      io.Writer
}
