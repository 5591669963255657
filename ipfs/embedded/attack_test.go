package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/embedded/hostiletest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

const (
	// victimVariable makes this program a node that is attacked: a process of its own, whose
	// memory is that of nobody else.
	victimVariable = "IPCS_TEST_VICTIM"
	// victimMemory is what a node may take at most, with 50 MB of blocks in it, whatever a peer does.
	victimMemory = 320 << 20
)

// victimBlocks are what the victim has. ipfstest.Blocks makes the same ones for the same name.
func victimBlocks(t testing.TB) []ipfs.Block { return ipfstest.Blocks(t, 500, 100_000) }

// TestVictim is the victim's process, and nothing else.
func TestVictim(t *testing.T) {
	if os.Getenv(victimVariable) == "" {
		return
	}
	store := ipfstest.NewMemory()
	put(t, store, victimBlocks(t)...)
	n := open(t, embedded.Config{}, store)
	fmt.Printf("victim at %s\n", n.Addrs()[0])
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
}

// startVictim returns where it is, and its process.
func startVictim(t *testing.T) (peer.AddrInfo, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.count=1")
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	t.Cleanup(func() {
		stdin.Close()
		for lines.Scan() {
			t.Logf("victim: %s", lines.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the victim: %v", err)
		}
	})
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "victim at "); ok {
			info, err := peer.AddrInfoFromString(addr)
			if err != nil {
				t.Fatal(err)
			}
			return *info, cmd.Process.Pid
		}
	}
	t.Fatal("the victim does not start")
	return peer.AddrInfo{}, 0
}

// peakMemory is the most that a process has had.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestUnderAttack has a node serve honest peers over both protocols while one peer attacks it, in
// each way, and holds its memory to a bound.
func TestUnderAttack(t *testing.T) {
	want := victimBlocks(named{t, "TestVictim"}) // that name is in them
	for name, attack := range hostiletest.Attacks() {
		t.Run(name, func(t *testing.T) {
			victim, pid := startVictim(t)
			ctx, cancel := context.WithCancel(t.Context())
			attacked := make(chan error, 1)
			go func() { attacked <- attack(ctx, victim, ipfstest.Cids(want)) }()
			time.Sleep(2 * time.Second) // it has taken by then what it can
			start := time.Now()
			cli := open(t, embedded.Config{Peers: []string{victim.Addrs[0].String() + "/p2p/" + victim.ID.String()}}, ipfstest.NewMemory())
			if n, err := fetchAll(ctx, cli, ipfstest.Cids(want)); n != len(want) || err != nil {
				t.Errorf("%d of %d blocks over our protocol: %v", n, len(want), err)
			}
			ours := time.Since(start)
			start = time.Now()
			overBitswap(t, victim, want[:100])
			t.Logf("%d blocks in %v, 100 over bitswap in %v; %d MiB at most", len(want), ours, time.Since(start), peakMemory(t, pid)>>20)
			if got := peakMemory(t, pid); got > victimMemory {
				t.Errorf("the victim took %d MiB, at most %d are for it", got>>20, victimMemory>>20)
			}
			cancel()
			if err := <-attacked; err != nil {
				t.Errorf("the attacker gave up: %v", err)
			}
		})
	}
}

// named is a test of another name.
type named struct {
	testing.TB
	name string
}

func (n named) Name() string { return n.name }

// overBitswap gets blocks with another's client.
func overBitswap(t *testing.T, from peer.AddrInfo, want []ipfs.Block) {
	t.Helper()
	h := startHost(t)
	net := bsnet.NewFromIpfsHost(h)
	c := client.New(t.Context(), net, nil, blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())))
	net.Start(c)
	defer net.Stop()
	defer c.Close()
	if err := h.Connect(t.Context(), from); err != nil {
		t.Errorf("connect: %v", err)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got, err := c.GetBlocks(ctx, ipfstest.Cids(want))
	if err != nil {
		t.Errorf("over bitswap: %v", err)
		return
	}
	n := 0
	for range got {
		n++
	}
	if n != len(want) {
		t.Errorf("%d of %d blocks over bitswap", n, len(want))
	}
}
