package packs

// SetPackSize makes files full earlier.
func (p *Packs) SetPackSize(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = n
}
