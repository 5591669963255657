package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"

	"github.com/hinshun/ipcs/content/contenttest"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// TestKuboContent is containerd's suite of content stores on a real Kubo.
func TestKuboContent(t *testing.T) {
	t.Parallel() // most of the time it waits
	labtest.Tools(t, tools.Kubo...)
	m := labtest.Machine(t, labtest.Open(t, "kubocont", 0), "kubo")
	daemon, err := m.StartKubo(t.Context(), lab.KuboOptions{})
	if err != nil {
		t.Fatal(err)
	}
	testsuite.ContentSuite(t, "kubo", func(ctx context.Context, dir string) (context.Context, ctd.Store, func() error, error) {
		node, err := kubo.NewWith(daemon.API, kubo.Options{Timeout: 10 * time.Second})
		if err != nil {
			return nil, nil, nil, err
		}
		h, err := contenttest.OpenOn(dir, node)
		if err != nil {
			return nil, nil, nil, errors.Join(err, node.Close())
		}
		return ctx, h.Store, func() error { return errors.Join(h.Close(), node.Close()) }, nil
	})
}
