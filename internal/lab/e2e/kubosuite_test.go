package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// TestKuboSuite runs the suite that every node passes on a real Kubo, by its RPC alone and with
// the daemon's store before it.
func TestKuboSuite(t *testing.T) {
	t.Parallel() // most of the time it waits
	labtest.Tools(t, tools.Kubo...)
	m := labtest.Machine(t, labtest.Open(t, "suite", 0), "kubo")
	daemon, err := m.StartKubo(t.Context(), lab.KuboOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const timeout = 2 * time.Second
	t.Run("client", func(t *testing.T) {
		ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
			c, err := kubo.NewWith(daemon.API, kubo.Options{Timeout: timeout})
			return withoutPins(t, c, err)
		}, ipfstest.OneName)
	})
	t.Run("repository", func(t *testing.T) { // the address is in it
		ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
			c, err := kubo.NewWith(daemon.Repo, kubo.Options{Timeout: timeout})
			return withoutPins(t, c, err)
		}, ipfstest.OneName)
	})
	t.Run("node", func(t *testing.T) {
		ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
			dir, err := os.MkdirTemp(m.Dir(), "store-")
			if err != nil {
				t.Fatal(err)
			}
			store, err := objects.Open(dir, objects.Options{})
			if err != nil {
				t.Fatal(err)
			}
			n, err := kubo.Open(t.Context(), kubo.Config{Addr: daemon.API, Timeout: timeout}, store)
			return storedNode{withoutPins(t, n, err), store}
		}, ipfstest.OneName)
	})
}

// withoutPins removes the pins of the test before.
func withoutPins(t *testing.T, n ipfs.Node, err error) ipfs.Node {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	pins, err := n.Pins(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pins {
		if err := n.Unpin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A storedNode closes its store after the node.
type storedNode struct {
	ipfs.Node
	store *objects.Store
}

func (n storedNode) Close() error {
	if err := n.Node.Close(); err != nil {
		return err
	}
	return n.store.Close()
}
