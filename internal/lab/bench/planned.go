package bench

// Planned is a scenario of something that ipcs cannot do yet. It is listed, so that
// nobody takes what is measured for all there will be, and becomes a Scenario with
// what it is about.
type Planned struct {
	Name, Title, Reason string
}

// Unbuilt returns the scenarios that are still to come.
func Unbuilt() []Planned {
	return []Planned{
		{"restart", "Reads while the daemon is killed and started again", "files that a running container has not opened yet fail after a restart"},
		{"peers", "Bulk transfer between nodes of ipcs", "nodes speak bitswap alone"},
		{"origin", "Start and whole content from a registry with no peer at all", "the daemon cannot fetch from a registry"},
		{"content-store", "Ordinary images through the content store", "there is no content store yet"},
		{"compare", "Speed and memory of compare", "there is no compare yet"},
	}
}
