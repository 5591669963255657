package main

import (
	"os"
	"testing"
)

// TestMain is a helper when a daemon of these tests starts one: that runs its own program,
// which is this test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == relayCommand().Name() || os.Args[1] == imagesCommand().Name()) {
		main()
		return
	}
	os.Exit(m.Run())
}
