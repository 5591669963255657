package lazyfs

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/ipfs"
)

// Node numbers: the root, the directory in it, then one per shard, then objects.
const (
	rootNode   = 1
	hiddenNode = 2
	shardNodes = 3
	// alphabet is that of CIDs in base32; two of its letters name a shard.
	alphabet    = "abcdefghijklmnopqrstuvwxyz234567"
	objectNodes = shardNodes + len(alphabet)*len(alphabet)
)

// shardNode returns the number of the directory with this name.
func shardNode(name string) (id uint64, ok bool) {
	if len(name) != 2 {
		return 0, false
	}
	a, b := letter(name[0]), letter(name[1])
	if a < 0 || b < 0 {
		return 0, false
	}
	return uint64(shardNodes + a*len(alphabet) + b), true
}

func letter(c byte) int {
	switch {
	case c >= 'a' && c <= 'z':
		return int(c - 'a')
	case c >= '2' && c <= '7':
		return int(c-'2') + 26
	}
	return -1
}

func isDir(id uint64) bool { return id >= rootNode && id < uint64(objectNodes) }

// node is an object that the kernel remembers.
type node struct {
	id      uint64
	cid     cid.Cid
	lookups uint64 // that were not forgotten; guarded by nodes.mu

	mu    sync.Mutex
	claim ipfs.File // what the kernel was told of it
	// restored says that of claim only CID and size are known.
	restored bool
	failed   *failure // nil: none
}

func (n *node) file() ipfs.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.claim
}

func (n *node) setFile(f ipfs.File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.Cid.Equals(n.cid) {
		f.Cid = n.cid // one string for both: there may be as many nodes as files
	}
	n.claim = f
}

// failure is the last read that failed after a long wait.
type failure struct {
	leaf int64
	at   time.Time
	err  error
}

// nodes are the objects that the kernel remembers. A CID keeps its number as long.
type nodes struct {
	mu    sync.RWMutex
	byCid map[cid.Cid]*node
	byID  map[uint64]*node
	next  uint64
}

func newNodes() *nodes {
	return &nodes{byCid: make(map[cid.Cid]*node), byID: make(map[uint64]*node), next: uint64(objectNodes)}
}

// lookup returns the node of a file, and counts that the kernel knows it once more.
func (t *nodes) lookup(c cid.Cid) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.byCid[c]
	if !ok {
		n = &node{id: t.next, cid: c}
		t.next++
		t.byCid[c] = n
		t.byID[n.id] = n
	}
	n.lookups++
	return n
}

// restore takes up a node that the kernel knows from another process.
func (t *nodes) restore(id uint64, c cid.Cid, lookups uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &node{id: id, cid: c, lookups: lookups}
	t.byCid[c], t.byID[id] = n, n
	t.next = max(t.next, id+1)
	return n
}

func (t *nodes) get(id uint64) *node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// forget takes back lookups, and says whether the node is gone now.
func (t *nodes) forget(id, lookups uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.byID[id]
	if !ok {
		return false
	}
	if n.lookups -= min(lookups, n.lookups); n.lookups > 0 {
		return false
	}
	delete(t.byID, id)
	delete(t.byCid, n.cid)
	return true
}

// all returns the nodes of now.
func (t *nodes) all() []*node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.byID))
}

func (t *nodes) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

// known returns what the kernel may remember of files.
func (fs *fileSystem) known() []relay.Node {
	t := fs.nodes
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]relay.Node, 0, len(t.byID))
	for id, n := range t.byID {
		name := n.cid.String()
		shard, _ := shardNode(objects.Shard(name))
		all = append(all, relay.Node{ID: id, Parent: shard, Name: name, Size: uint64(n.file().Size), Lookups: n.lookups})
	}
	return all
}
