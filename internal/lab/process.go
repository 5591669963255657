package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long a process has to stop after SIGTERM before it is killed.
const stopTime = 20 * time.Second

// cleanTime is how long containerd has for what it is asked to end.
const cleanTime = 2 * time.Minute

// cleaning returns a context for that: it goes on when ctx has ended, or nothing would be
// cleaned up after an interruption, but not for ever, or what hangs would be waited for.
func cleaning(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
}

// logTail is how much of a log an error shows.
const logTail = 4 << 10

// A Process is one that the lab started, alone in its process group. A goroutine
// waits for it and closes done.
type Process struct {
	name string
	log  string // file of its output; "" for none
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid when done is closed
}

// Start starts a program of any kind on the machine, a command of Command, and waits
// until ready returns nil. What the program writes is in NAME.log on the machine's disk.
func (m *Machine) Start(ctx context.Context, name string, cmd *exec.Cmd, ready func(context.Context) error) (*Process, error) {
	p, err := m.lab.start(name+" on "+m.Name, filepath.Join(m.dir, name+".log"), cmd)
	if err != nil {
		return nil, err
	}
	return p, p.ready(ctx, ready)
}

// start runs cmd with its output to the file logPath, and notes it in the state.
func (l *Lab) start(name, logPath string, cmd *exec.Cmd) (*Process, error) {
	if logPath != "" {
		f, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close() // the process has its own descriptor
		cmd.Stdout, cmd.Stderr = f, f
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	p := &Process{name: name, log: logPath, cmd: cmd, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	l.processes = append(l.processes, p)
	if err := l.state.add(p.pid()); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Process) pid() int { return p.cmd.Process.Pid }

// netns is a path that nsenter(1) takes.
func (p *Process) netns() string { return fmt.Sprintf("/proc/%d/ns/net", p.pid()) }

func (p *Process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop ends the process with SIGTERM and waits for it; one that does not stop in time
// is killed, which is an error.
func (p *Process) Stop() error {
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not stop within %s of SIGTERM and was killed%s", p.name, stopTime, p.tail())
	}
}

// Kill ends the process and its group at once, and waits for it.
func (p *Process) Kill() {
	if !p.running() {
		return
	}
	// The group exists as long as its leader has not been waited for.
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.done
}

// ready calls probe again and again until it succeeds. It fails when ctx ends, and at
// once when the process does. A process that does not become ready is ended: nobody has
// a use for it, or would know that it runs.
func (p *Process) ready(ctx context.Context, probe func(context.Context) error) error {
	if err := p.await(ctx, probe); err != nil {
		return errors.Join(err, p.Stop())
	}
	return nil
}

func (p *Process) await(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once: %w%s", p.name, p.exit(), p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)%s", p.name, err, ctx.Err(), p.tail())
		case <-tick.C:
		}
	}
}

// exit says how a process that is done ended.
func (p *Process) exit() error {
	if p.err != nil {
		return p.err
	}
	return errors.New("exit status 0")
}

// tail returns the end of the process's log, to stand at the end of an error.
func (p *Process) tail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, logTail))
	if err != nil || len(text) == 0 {
		return ""
	}
	return fmt.Sprintf("\n--- end of %s ---\n%s", p.log, strings.TrimRight(string(text), "\n"))
}

// Tail returns the end of what the process logged, for a person to read.
func (p *Process) Tail() string { return p.name + p.tail() }
