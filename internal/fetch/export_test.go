package fetch

// Known returns how many incomplete files are remembered.
func (f *Fetcher) Known() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.files)
}
