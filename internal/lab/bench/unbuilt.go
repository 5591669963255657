package bench

// Unbuilt is a scenario of something that ipcs cannot do yet. It is listed, so that
// nobody takes what is measured for all there will be, and becomes a Scenario with
// what it is about.
type Unbuilt struct {
	Name, Title, Reason string
}

// ToCome returns the scenarios that are not built yet.
func ToCome() []Unbuilt {
	return []Unbuilt{
		{"restart", "Reads while the daemon is killed and started again", "files that a running container has not opened yet fail after a restart"},
		{"peers", "Bulk transfer between nodes of ipcs", "nodes speak bitswap alone"},
		{"origin", "Start and whole content from a registry with no peer at all", "the daemon cannot fetch from a registry"},
		{"content-store", "Ordinary images through the content store", "there is no content store yet"},
		{"compare", "Speed and memory of compare", "there is no compare yet"},
	}
}
