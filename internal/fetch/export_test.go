package fetch

// Named returns of how many files leaves are named.
func (f *Fetcher) Named() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.named)
}

// Known returns how many incomplete files are remembered.
func (f *Fetcher) Known() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.files)
}
