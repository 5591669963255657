package imagedir

// Limits, for tests.
const (
	MaxWalked = maxWalked
	MaxDepth  = maxDepth
	MaxInList = maxInList
)
