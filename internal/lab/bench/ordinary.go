package bench

// ordinary is about images that are nowhere but in a registry.
func ordinary() Scenario {
	s := Scenario{
		Name:  "ordinary",
		Title: "Ordinary images on the content store",
		About: "From the start of `ctr image pull` of an ordinary image until it is unpacked for overlayfs, `local`, on a machine that has nothing of it: with containerd's own " +
			"content store, with that of ipcs, and with that where another machine has pulled the image before, so that all but the tag comes from there. " +
			"`received` is what came over the machine's link, `cpu` what containerd and the daemon used on processors, `peak` the most memory that the daemon held, " +
			"`disk` what all their folders take in the end. " + bothEnds,
		Systems: []string{"overlayfs", "content", "content-peers"},
		Main:    []string{metricLocal.Name, metricReceived.Name, metricDisk.Name},
		Measure: measureFull,
	}
	links := []Link{{Mbit: 1000}, {Mbit: 200}}
	s.Cases = []Case{
		{Name: "python", Image: "debian", Links: links, Rounds: 5},
		{Name: "golang", Image: "golang", Links: links, Rounds: 3},
	}
	return s
}
