package embedded

import (
	"context"

	"github.com/ipfs/go-cid"
)

// seek has those connected who are said to have what key names, and waits for that, for seekTime at most. It says whether anybody knows such.
func (f *finder) seek(ctx context.Context, key cid.Cid) bool {
	if len(f.sources) == 0 {
		return false
	}
	f.mu.Lock()
	done, ok := f.sought[key]
	if !ok && len(f.sought) >= maxLookups {
		f.mu.Unlock()
		return false
	}
	if !ok {
		done = make(chan struct{})
		f.sought[key] = done
	}
	f.mu.Unlock()
	nudge(f.wake)
	ctx, cancel := context.WithTimeout(ctx, seekTime)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done(): // some may be connected all the same
	}
	return true
}
