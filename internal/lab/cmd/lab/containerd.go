package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/demo"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// private names the lab of "make containerd".
const private = "private"

// environment is the file that tells another terminal where everything is, in the
// syntax of sh(1).
func environment(cache string) string { return filepath.Join(cache, "run", "private.env") }

// runContainerd runs a registry, the daemon and containerd on the loopback device
// until ctx ends.
func runContainerd(ctx context.Context, opts lab.Options, cache string) (err error) {
	opts.Name, opts.Rate = private, 0
	l, err := lab.Open(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(), l.Leftovers(), os.Remove(environment(cache))) }()
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return err
	}
	registry, err := m.StartRegistry(ctx)
	if err != nil {
		return err
	}
	node, err := runningKubo(ctx, cache)
	if err != nil {
		return err
	}
	daemon, err := m.StartDaemon(ctx, lab.DaemonOptions{Kubo: node})
	if err != nil {
		return err
	}
	c, err := m.StartContainerd(ctx, lab.ContainerdOptions{Daemon: daemon})
	if err != nil {
		return err
	}
	tools, err := filepath.Abs(opts.Tools)
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(opts.Bin)
	if err != nil {
		return err
	}
	env := fmt.Sprintf("export CONTAINERD_ADDRESS=%s IPCS_API=%s REGISTRY=%s PATH=%s:%s:$PATH\n",
		c.Address, daemon.API, registry.Addr, bin, tools)
	if err := os.WriteFile(environment(cache), []byte(env), 0o600); err != nil {
		return err
	}
	fmt.Printf(`containerd with ipcs runs:
    containerd         %s
    ipcs-snapshotter   %s
    registry           %s
%sIn another terminal, "make convert" converts an image for it. Ctrl-C stops all.
`, c.Address, daemon.API, registry.Addr, nodeLine(node))
	select {
	case <-ctx.Done():
		fmt.Println("\nstopping; the images in this registry go with it")
		return c.Stop(context.WithoutCancel(ctx))
	case <-c.Done():
		return fmt.Errorf("containerd ended:%s", c.Tail())
	case <-daemon.Done():
		return fmt.Errorf("ipcs-snapshotter ended:%s", daemon.Tail())
	}
}

// nodeLine says which Kubo is the daemon's node, if one is.
func nodeLine(kubo string) string {
	if kubo == "" {
		return ""
	}
	return fmt.Sprintf("    node               the Kubo of \"make ipfs\", %s\n", kubo)
}

// runConvert converts an image into the registry of runContainerd, and says how to
// run it.
func runConvert(ctx context.Context, cache, image string) error {
	env := environment(cache)
	if _, err := os.Stat(env); err != nil {
		return fmt.Errorf("%w: start \"make containerd\" in another terminal first", err)
	}
	if image == "" {
		dir, err := images.Ensure(ctx, filepath.Join(cache, "images"), "debian", func(format string, args ...any) {
			fmt.Printf(format+"\n", args...)
		})
		if err != nil {
			return err
		}
		image = "oci:" + dir + ":" + images.Tag
	}
	name := demo.Repository(image)
	script := `. "$1" && set -x &&
convert --mediatype unixfs --plain-http --ipfs-api "$IPCS_API" "$2" "$REGISTRY/$3:ipcs"`
	cmd := exec.CommandContext(ctx, "sh", "-c", script, "convert", env, image, name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("convert: %w", err)
	}
	fmt.Printf(strings.TrimLeft(`
Now run it:
    . %[1]s
    ctr image pull --plain-http --snapshotter ipcs $REGISTRY/%[2]s:ipcs
    ctr run --rm -t --snapshotter ipcs $REGISTRY/%[2]s:ipcs hello bash
`, "\n"), env, name)
	return nil
}
