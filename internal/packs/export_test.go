package packs

import "time"

// SetPackSize makes files full earlier. It is called before Start.
func (p *Packs) SetPackSize(n int64) { p.full = n }

// SetInterval has room asked more often. It is called before Start.
func (p *Packs) SetInterval(d time.Duration) { p.interval = d }

// Scanned is closed when all that was there is known.
func (p *Packs) Scanned() <-chan struct{} { return p.scanned }
