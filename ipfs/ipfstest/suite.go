package ipfstest

import (
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

// Suite runs the conformance tests against nodes that open returns, a fresh one
// for each test.
func Suite(t *testing.T, open func(t *testing.T) ipfs.Node) {
	t.Helper()
}
