package objects

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// A pin's key is the CID, which says itself how long it is, and the name.
func pinKey(p ipfs.Pin) []byte { return append(p.Root.Bytes(), p.Name...) }

// Pin makes all that was stored before durable, and then the pin.
func (s *Store) Pin(ctx context.Context, pin ipfs.Pin) error {
	if err := s.withRoom(func() error { return s.setPin(ctx, pin) }); err != nil {
		return fmt.Errorf("pin %s as %q: %w", pin.Root, pin.Name, noSpace(s.dir, err))
	}
	return nil
}

// Unpin removes one pin. Removing one that is not there is no error.
func (s *Store) Unpin(ctx context.Context, pin ipfs.Pin) error {
	if !pin.Root.Defined() {
		return fmt.Errorf("unpin %q: no CID given", pin.Name)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("unpin %s: %w", pin.Root, err)
	}
	if err := s.db.flush(entry{bucket: bucketPins, key: pinKey(pin)}); err != nil {
		return fmt.Errorf("unpin %s as %q: %w", pin.Root, pin.Name, noSpace(s.dir, err))
	}
	s.room.unpinned()
	return nil
}

func (s *Store) setPin(ctx context.Context, pin ipfs.Pin) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !pin.Root.Defined() {
		return fmt.Errorf("no CID given")
	}
	s.gate.RLock()
	end := s.room.beginPin(pin.Root)
	s.gate.RUnlock()
	defer end()
	return s.sync(entry{bucketPins, pinKey(pin), []byte{}})
}

// Pins lists the pins with exactly this name, or all for the empty name, by CID.
func (s *Store) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	pins, err := s.pins(name)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return pins, nil
}

func (s *Store) pins(name string) ([]ipfs.Pin, error) {
	var pins []ipfs.Pin
	var bad error
	err := s.db.scan(bucketPins, nil, func(key, _ []byte) bool {
		n, root, err := cid.CidFromBytes(key)
		if err != nil {
			bad = fmt.Errorf("record %x: %w", key, err)
			return false
		}
		if p := (ipfs.Pin{Root: root, Name: string(key[n:])}); name == "" || p.Name == name {
			pins = append(pins, p)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return pins, bad
}
