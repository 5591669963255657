// Package hosttest is what tests want of the host that they run on: root rights, mounts, and
// the test's own binary as another program.
//
// What a host lacks skips a test, loudly; with IPCS_REQUIRE_ALL=1, as in CI, it fails it.
package hosttest

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// Root ends the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacking(t, "root rights, to mount and to make devices")
	}
}

// Lacking ends a test for what this host does not have.
func Lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("IPCS_REQUIRE_ALL") == "1" {
		t.Fatalf("this test needs %s, and IPCS_REQUIRE_ALL=1 says that nothing may be skipped", what)
	}
	t.Skipf("NOT TESTED: this test needs %s", what)
}

// Kills returns how often a test is to kill something: what IPCS_KILLS says, as nightly runs do,
// or else so often.
func Kills(t testing.TB, fast int) int {
	t.Helper()
	text := os.Getenv("IPCS_KILLS")
	if text == "" {
		return fast
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("IPCS_KILLS=%q is no number of kills", text)
	}
	return n
}

// program in the environment of a test's binary names the program that it is to be.
const program = "IPCS_TEST_PROGRAM"

// Main, called by TestMain, runs the tests of a package, or one of the programs if the binary
// was started as that. A program is given the argument it was started with; its error is
// printed.
func Main(m *testing.M, programs map[string]func(arg string) error) {
	name := os.Getenv(program)
	if name == "" {
		os.Exit(m.Run())
	}
	run, ok := programs[name]
	if !ok || len(os.Args) != 2 {
		fmt.Printf("no program %q takes %q", name, os.Args[1:])
		os.Exit(1)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Print(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Program is a command that runs the test's binary as a program.
func Program(name, arg string) *exec.Cmd {
	return As(name, exec.Command(os.Args[0], arg))
}

// As has a command that runs the test's binary run it as a program.
func As(name string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), program+"="+name)
	return cmd
}
