// Package command is what the commands of ipcs have in common: signals, exit codes, versions, and bars that end with a word.
//
// Exit codes are 0 for done, 1 for an error, 2 for wrong usage. The package starts nothing but what Main waits for.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
)

// ErrUsage marks errors of the command line, which exit with 2.
var ErrUsage = errors.New("usage")

// Main runs a command until it has ended or a signal says so, and ends the process. A second signal ends it at once.
func Main(name string, root *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	stop()
	os.Exit(ExitCode(name, err))
}

// ExitCode tells what went wrong, and returns the code to exit with.
func ExitCode(name string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, name+":", Printable(err.Error()))
	if errors.Is(err, ErrUsage) {
		return 2
	}
	return 1
}

// FlagErrors makes errors of a command's flags errors of usage.
func FlagErrors(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see --help", ErrUsage, err)
	})
}

// Version returns the version that the Makefile has set, or else that of the module.
func Version(set string) string {
	if set != "devel" {
		return set
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return set
}

// Printable is text that cannot steer a terminal: messages hold what images say.
func Printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
