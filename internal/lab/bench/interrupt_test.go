package bench_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab/bench"
)

// labFolders are where a run's lab has its files and mounts.
func labFolders(opts bench.Options) []string {
	return []string{filepath.Join(opts.Cache, "run", "lab-"+opts.Lab), filepath.Join("/run/ipcs-lab", opts.Lab)}
}

// nothingLeft finds no folders, mounts and processes of a lab, and none of the network
// namespaces, which are there as long as the children of this process that sleep in them.
func nothingLeft(t *testing.T, opts bench.Options) {
	t.Helper()
	for _, dir := range labFolders(opts) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left behind (%v)", dir, err)
		}
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mounts {
			t.Errorf("%s is still mounted (%s)", m.Mountpoint, m.FSType)
		}
	}
	for _, p := range labProcesses(t, opts) {
		t.Errorf("still running: %s", p)
	}
}

// labProcesses returns the command lines of processes that were started in a lab: they
// have its folders in their arguments or environment, or are children of this process.
func labProcesses(t *testing.T, opts bench.Options) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range all {
		if filepath.Base(p) == strconv.Itoa(os.Getpid()) {
			continue
		}
		arguments := read(p, "cmdline")
		text := arguments + read(p, "environ")
		mine := strings.Contains(read(p, "status"), "\nPPid:\t"+strconv.Itoa(os.Getpid())+"\n")
		for _, dir := range labFolders(opts) {
			mine = mine || strings.Contains(text, dir+"/")
		}
		if mine {
			found = append(found, filepath.Base(p)+" "+strings.ReplaceAll(arguments, "\x00", " "))
		}
	}
	return found
}

// read returns a file of a process, or nothing when that has ended.
func read(process, file string) string {
	text, _ := os.ReadFile(filepath.Join(process, file))
	return string(text)
}

// TestInterrupt ends a run while a command runs in a container, which is when there is
// most to be cleaned up.
func TestInterrupt(t *testing.T) {
	opts := smallest(t, "interr")
	opts.Only = []string{"cold-start/python"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running errgroup.Group
	running.Go(func() error { defer cancel(); return containerRuns(ctx, opts) })
	err := bench.Measure(ctx, opts)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	cancel()
	if err := running.Wait(); err != nil {
		t.Errorf("the run ended before a command ran in a container: %v", err)
	}
	t.Logf("interrupted: %v", err)
	for _, words := range []string{"left running", "still mounted", "do not end", "was killed", "deadline exceeded"} {
		if err != nil && strings.Contains(err.Error(), words) {
			t.Errorf("not all was cleaned up as it should be: %v", err)
		}
	}
	nothingLeft(t, opts)
	if left, err := os.ReadDir(opts.Results); err != nil || len(left) != 0 {
		t.Errorf("half a scenario has a report: %v, %v", left, err)
	}
}

// containerRuns returns when a shim has a folder for a container of the lab.
func containerRuns(ctx context.Context, opts bench.Options) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		tasks, err := filepath.Glob("/run/ipcs-lab/" + opts.Lab + "/consumer/*/io.containerd.runtime.v2.task/*/*/init.pid")
		if err != nil || len(tasks) > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
