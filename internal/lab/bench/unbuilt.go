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
		{"restart", "Reads while the daemon is killed and started again", "tests show that none fails; how long they wait is not measured"},
		{"rootless", "Start and work without root rights", "a test shows that it works; its speed is not measured"},
		{"origin", "Start and whole content from a registry with no peer at all", "the daemon cannot fetch from a registry"},
		{"content-store", "Ordinary images through the content store", "there is no content store yet"},
		{"compare", "Speed and memory of compare", "there is no compare yet"},
	}
}
