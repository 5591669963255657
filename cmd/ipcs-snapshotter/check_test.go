package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
)

// stored makes a store with a pinned block, a block that is damaged, and one that is right.
func stored(t *testing.T, dir string, pin bool) *objects.Store {
	t.Helper()
	s, err := objects.Open(dir, objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"right", "damaged"} {
		b, err := ipfs.NewBlock(cid.Raw, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if text == "right" {
			continue
		}
		if pin {
			if err := s.Pin(t.Context(), ipfs.Pin{Root: b.Cid, Name: "a pin"}); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(s.ObjectsDir(), objects.Path(b.Cid))
		if err := os.Truncate(path, 3); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// checkWith runs the command.
func checkWith(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	cmd := rootCommand()
	var b bytes.Buffer
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	cmd.SetArgs(append([]string{"check", "--config", writeConfig(t, "")}, args...))
	return exitCode(cmd.ExecuteContext(t.Context())), b.String()
}

func TestCheckWithoutADaemon(t *testing.T) {
	root := t.TempDir()
	args := []string{"--root", root, "--state", t.TempDir()}
	if code, out := checkWith(t, args...); code != 1 {
		t.Errorf("check of no store exits with %d: %s", code, out)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("check has made %v, %v", left, err)
	}
	if err := stored(t, filepath.Join(root, "repo"), false).Close(); err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct {
		flag string
		code int
		want string
	}{
		{"--dry-run", 1, "not all is right"},
		{"--dry-run=false", 0, "what was wrong is mended"},
		{"--dry-run", 0, "all are right"},
	} {
		if code, out := checkWith(t, append(args, run.flag)...); code != run.code || !strings.Contains(out, run.want) {
			t.Errorf("check %s exits with %d, want %d and %q: %s", run.flag, code, run.code, run.want, out)
		}
	}
}

func TestCheckOfARunningDaemon(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, filepath.Join(dir, "repo"), true)
	defer s.Close()
	l, err := listenUnix(t.Context(), filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+checkPath, checkHandler(t.Context(), s, slog.New(slog.DiscardHandler)))
	server := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-done
	}()
	code, out := checkWith(t, "--state", dir)
	if code != 1 || !strings.Contains(out, `LOST: pin "a pin"`) || !strings.Contains(out, "start them again") {
		t.Errorf("check exits with %d: %s", code, out)
	}
	code, out = checkWith(t, "--state", dir, "--json")
	var r objects.CheckReport
	if err := json.Unmarshal([]byte(out), &r); code != 1 || err != nil || len(r.Lost) != 1 || len(r.Damaged) != 0 || r.Objects != 1 {
		t.Errorf("check --json exits with %d, %v: %s", code, err, out)
	}
}

// TestCheckEndsWithTheDaemon: the client is told, and does not take it for a good end.
func TestCheckEndsWithTheDaemon(t *testing.T) {
	dir := t.TempDir()
	s := stored(t, filepath.Join(dir, "repo"), false)
	defer s.Close()
	l, err := listenUnix(t.Context(), filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server := &http.Server{Handler: checkHandler(ctx, s, slog.New(slog.DiscardHandler))}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-done
	}()
	if code, out := checkWith(t, "--state", dir); code != 1 || strings.Contains(out, "right") {
		t.Errorf("check exits with %d: %s", code, out)
	}
}

func FuzzByteSize(f *testing.F) {
	for _, s := range []string{"0", "50GB", "40 GiB", "1,5", "-1", "1e3", "9999999999EB", ".", "8EiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b byteSize
		if err := b.Set(s); err == nil && b < 0 {
			t.Errorf("%q is %d", s, b)
		}
	})
}
