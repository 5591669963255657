package images

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"

	"github.com/hinshun/ipcs/internal/lab/tools"
)

// A bootstrap is a recipe: the Debian of the release that this machine runs, from
// Debian's packages and with Debian's tools, in one layer.
type bootstrap struct {
	updated bool // with what was mended since the release
}

// noServices keeps packages from starting services while they are installed, as in all
// images of Debian.
const noServices = `printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d" && chmod 755 "$1/usr/sbin/policy-rc.d"`

func (b bootstrap) make(ctx context.Context, j job) error {
	if err := tools.Packages(ctx, map[string]string{"mmdebstrap": "mmdebstrap"}); err != nil {
		return err
	}
	suite, sources, err := b.sources()
	if err != nil {
		return err
	}
	root := filepath.Join(j.work, "root")
	j.log("mmdebstrap --variant=minbase %s", suite)
	command := append([]string{
		"mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
		`--aptopt=Acquire::Languages "none"`, "--customize-hook=" + noServices, suite, root,
	}, sources...)
	if err := runAlone(ctx, command...); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	j.log("writing the layer")
	return j.write(ctx, Image{
		Layers: []Layer{{
			CreatedBy: "mmdebstrap --variant=minbase",
			Tar:       func(w io.Writer) error { return archive.WriteDiff(ctx, w, "", root) },
		}},
		Config: config("/bin/bash"),
	})
}

// sources returns this machine's release, and lines for apt that say where its packages are.
func (b bootstrap) sources() (suite string, lines []string, err error) {
	if suite, err = release(); err != nil {
		return "", nil, err
	}
	main, err := mirror(suite)
	if err != nil {
		return "", nil, err
	}
	lines = []string{"deb " + main + " " + suite + " main"}
	if !b.updated {
		return suite, lines, nil
	}
	security, err := mirror(suite + "-security")
	if err != nil { // this machine does without: it is on the same host as a rule
		security = strings.TrimSuffix(main, "/debian") + "/debian-security"
	}
	return suite, append(lines, "deb "+main+" "+suite+"-updates main", "deb "+security+" "+suite+"-security main"), nil
}
