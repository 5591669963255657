package images

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"

	"github.com/hinshun/ipcs/internal/lab/tools"
)

// A bootstrap is a recipe: the Debian of the release that this machine runs, from
// Debian's packages and with Debian's tools, in one layer.
type bootstrap struct {
	updated bool // with what was mended since the release
}

func (b bootstrap) make(ctx context.Context, j job) error {
	root := filepath.Join(j.work, "root")
	if err := b.run(ctx, j, root, "--variant=minbase"); err != nil {
		return err
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

// run makes a tree at root with mmdebstrap.
func (b bootstrap) run(ctx context.Context, j job, root string, options ...string) error {
	if err := tools.Packages(ctx, map[string]string{"mmdebstrap": "mmdebstrap"}); err != nil {
		return err
	}
	suite, sources, err := b.sources()
	if err != nil {
		return err
	}
	j.log("mmdebstrap %s %s", options[0], suite)
	// What it leaves in its temporary folder when it is killed goes with the job's.
	command := slices.Concat([]string{
		"env", "TMPDIR=" + j.work, "mmdebstrap", "--quiet", "--mode=root", `--aptopt=Acquire::Languages "none"`,
	}, options, []string{suite, root}, sources)
	if err := runAlone(ctx, command...); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	return nil
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
