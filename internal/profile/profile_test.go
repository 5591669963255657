package profile_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hinshun/ipcs/internal/profile"
	"github.com/hinshun/ipcs/internal/profile/profiletest"
)

func TestWritesEachProfile(t *testing.T) {
	before := runtime.SetMutexProfileFraction(-1)
	dir := filepath.Join(t.TempDir(), "a", "b")
	// The second run finds that the first has ended.
	for range 2 {
		stop, err := profile.Start(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		profiletest.Check(t, dir)
	}
	if after := runtime.SetMutexProfileFraction(-1); after != before {
		t.Errorf("mutexes are sampled 1 in %d, before 1 in %d", after, before)
	}
}

func TestNoFolderNoProfiles(t *testing.T) {
	t.Chdir(t.TempDir())
	stop, err := profile.Start("")
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir("."); err != nil || len(files) != 0 {
		t.Errorf("written: %v, %v", files, err)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	stop, err := profile.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Start(t.TempDir()); err == nil {
		t.Error("two runs at a time")
	}
	if _, err := profile.Start(filepath.Join(dir, "cpu.pprof")); err == nil {
		t.Error("a file was taken for a folder")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err == nil {
		t.Error("no error, but the folder is gone")
	}
}
