package ipfstest

import (
	"cmp"
	"context"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Pin implements ipfs.Pinner. The root must be here, as every node demands.
func (m *Memory) Pin(ctx context.Context, pin ipfs.Pin) error {
	if err := m.begin(ctx, "pin", pin.Root, func(n *Counts) { n.Pins++ }); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins[pin] = true
	return nil
}

// Unpin implements ipfs.Pinner.
func (m *Memory) Unpin(ctx context.Context, pin ipfs.Pin) error {
	if err := m.begin(ctx, "unpin", pin.Root, func(*Counts) {}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pins, pin)
	return nil
}

// Pins implements ipfs.Pinner.
func (m *Memory) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	if err := m.begin(ctx, "pins", cid.Undef, func(*Counts) {}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var pins []ipfs.Pin
	for pin := range m.pins {
		if name == "" || pin.Name == name {
			pins = append(pins, pin)
		}
	}
	slices.SortFunc(pins, func(a, b ipfs.Pin) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Root.KeyString(), b.Root.KeyString()))
	})
	return pins, nil
}

// Close implements io.Closer. Whatever is called later fails.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
