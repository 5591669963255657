package embedded

import "golang.org/x/sync/semaphore"

// Wanted is how many blocks a node waits for.
func Wanted(n *Node) int {
	x := n.online.exchange
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.wants)
}

// SetWindow changes how many wants a node that has none yet may have on the wire, and how many
// bytes its calls of Fetch may have asked for.
func SetWindow(n *Node, wants, bytes int64) {
	x := n.online.exchange
	x.slots, x.bulk = semaphore.NewWeighted(wants), semaphore.NewWeighted(max(1, wants*maxBulk/maxWants))
	n.budget = newBudget(bytes)
}
