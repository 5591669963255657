package kubo

import (
	"context"
	"fmt"
)

// Addrs returns the addresses that the daemon's node listens on, as multiaddrs with /p2p/ID: those
// of its host and its link, too.
func (c *Client) Addrs(ctx context.Context) ([]string, error) {
	var id struct{ Addresses []string }
	if err := c.api.Request("id").Exec(ctx, &id); err != nil {
		return nil, fmt.Errorf("IPFS API at %s: addresses of the node: %w", c.addr, err)
	}
	return id.Addresses, nil
}
