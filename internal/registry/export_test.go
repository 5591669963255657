package registry

// Limits, for tests.
const (
	MaxFetching = maxFetching
	MaxRecent   = maxRecent
)
