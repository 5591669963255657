package main

import (
	"os"
	"testing"
)

// TestMain is a helper when a daemon of these tests starts one: that runs its own program,
// which is this test. It is all of the program where a test wants that.
func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" || len(os.Args) > 1 && (os.Args[1] == relayCommand().Name() || os.Args[1] == imagesCommand().Name()) {
		main()
		return
	}
	if os.Getenv(asReader) != "" {
		os.Exit(exitCode(readAll(os.Args[1])))
	}
	os.Exit(m.Run())
}
