package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a command may take to end after SIGTERM.
	stopGrace = 10 * time.Second
	// maxLogLine is how much of a line is looked at.
	maxLogLine = 64 << 10
)

// recordedCommand is the command that starts the container, or writes its log. One that was
// not given ends at once, and well.
type recordedCommand struct {
	argv           []string
	log            *regexp.Regexp // nil for none
	stdout, stderr io.Writer
	enough         func()      // a line has matched
	fail           func(error) // the command has ended as it should not

	cancel  context.CancelFunc // nil before it was started
	matched sync.Once
	found   bool // read when done is closed
	done    chan struct{}
	err     error // of the command, read when done is closed
}

func newRecordedCommand(f *recordFlags, enough func(), fail func(error), stdout, stderr io.Writer) *recordedCommand {
	return &recordedCommand{argv: f.command, log: f.log, stdout: stdout, stderr: stderr, enough: enough, fail: fail, done: make(chan struct{})}
}

// start starts it. How it ends says nothing once interrupted is done.
func (c *recordedCommand) start(ctx, interrupted context.Context) error {
	ctx, c.cancel = context.WithCancel(ctx)
	if len(c.argv) == 0 {
		close(c.done)
		return nil
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.stdout, c.stderr
	if c.log != nil {
		cmd.Stdout, cmd.Stderr = &logMatcher{to: c.stdout, command: c}, &logMatcher{to: c.stderr, command: c}
	}
	if err := cmd.Start(); err != nil {
		close(c.done)
		return fmt.Errorf("start COMMAND: %w", err)
	}
	go func() {
		defer close(c.done)
		err := cmd.Wait()
		if ctx.Err() != nil || interrupted.Err() != nil {
			return // it was told to end, as by Ctrl-C both of us are
		}
		if err != nil {
			c.err = fmt.Errorf("COMMAND ended before the recording: %w: nothing is kept", err)
		} else if c.log != nil && !c.found {
			c.err = fmt.Errorf("COMMAND ended, and no line of it matched %q: nothing is kept", c.log)
		}
		if c.err != nil {
			c.fail(c.err)
		}
	}()
	return nil
}

// ended waits until it has ended by itself, for a while, and returns its error.
func (c *recordedCommand) ended() error {
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		return nil
	}
}

// stop ends it and waits.
func (c *recordedCommand) stop() {
	if c.cancel != nil {
		c.cancel()
		<-c.done
	}
}

// logMatcher passes on what a command writes, and looks at its lines. exec writes to it from
// one goroutine.
type logMatcher struct {
	to      io.Writer
	command *recordedCommand
	line    []byte // begun
}

// Write implements io.Writer.
func (m *logMatcher) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte{'\n'})
		m.line = append(m.line, part[:min(len(part), maxLogLine-len(m.line))]...)
		if whole || len(m.line) == maxLogLine {
			m.command.look(m.line)
		}
		if whole {
			m.line = m.line[:0]
		}
		rest = after
	}
	n, err := m.to.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		return len(p), nil // nobody reads on, which does not concern the command
	}
	return n, err
}

// look looks at a line.
func (c *recordedCommand) look(line []byte) {
	if c.log.Match(line) {
		c.matched.Do(func() {
			c.found = true
			c.enough()
		})
	}
}
