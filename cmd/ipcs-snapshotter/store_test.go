package main

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRoomOfCompressedForms(t *testing.T) {
	const free, size = math.MaxInt64 / 4, 1000
	for name, c := range map[string]struct {
		limit, objects, forms, free, size int64
		want                              int64
	}{
		"no limit":               {0, 1000, 100, free, size, 500},
		"a quarter of the limit": {1000, 100, 0, free, size, 250},
		"what the limit leaves":  {1000, 800, 0, free, size, 100},
		"objects over the limit": {1000, 2000, 0, free, size, 0},
		"the disk fills":         {0, 1000, 100, 300, 2000, 200},
		"the reserve is reached": {0, 1000, 100, 200, 2000, 100},
		"the reserve is used up": {0, 1000, 100, 150, 2000, 50},
		"the disk is full":       {0, 1000, 100, 0, 2000, 0},
		"a limit, and a disk":    {10_000, 1000, 100, 300, 2000, 200},
	} {
		r := formsRoom{
			c.limit, func() (int64, bool) { return c.objects, true }, func() int64 { return c.forms },
			func() (int64, int64, error) { return c.free, c.size, nil },
		}
		if got, known := r.bytes(); got != c.want || !known {
			t.Errorf("%s: %d bytes, want %d; known: %v", name, got, c.want, known)
		}
	}
}

func TestRoomOfCompressedFormsThatIsNotKnown(t *testing.T) {
	for name, r := range map[string]formsRoom{
		"the store counts": {
			0, func() (int64, bool) { return 1000, false }, func() int64 { return 0 },
			func() (int64, int64, error) { return 1000, 1000, nil },
		},
		"the disk does not say": {
			0, func() (int64, bool) { return 1000, true }, func() int64 { return 0 },
			func() (int64, int64, error) { return 0, 0, errors.New("no disk") },
		},
	} {
		if got, known := r.bytes(); known {
			t.Errorf("%s: %d bytes", name, got)
		}
	}
}

func TestDiskSpace(t *testing.T) {
	free, size, err := diskSpace(t.TempDir())
	if err != nil || size < 1<<20 || free < 0 || free > size {
		t.Errorf("%d bytes free of %d: %v", free, size, err)
	}
	if _, _, err := diskSpace("/nowhere"); err == nil {
		t.Error("a folder that is not there is on a disk")
	}
}

// TestNoCompressedForms opens the store without them: because they are not wanted, when what
// was there goes, and because their folder cannot be used.
func TestNoCompressedForms(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(packs string) error
		wanted  bool
		warns   bool
	}{
		"not wanted": {func(packs string) error {
			return errors.Join(os.Mkdir(packs, 0o700), os.WriteFile(filepath.Join(packs, "0.pack"), nil, 0o600))
		}, false, false},
		"none there": {func(string) error { return nil }, false, false},
		"no folder":  {func(packs string) error { return os.WriteFile(packs, nil, 0o600) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaultConfig()
			cfg.Root, cfg.Store.Compressed = t.TempDir(), c.wanted
			packs := filepath.Join(cfg.Root, "packs")
			if err := c.prepare(packs); err != nil {
				t.Fatal(err)
			}
			var p parts
			var started closers
			var log bytes.Buffer
			err := p.openStore(cfg, slog.New(slog.NewTextHandler(&log, nil)), &started)
			defer func() {
				if err := started.close(); err != nil {
					t.Error(err)
				}
			}()
			if err != nil || p.packs != nil || p.forms() != nil || p.store.Space().Spare != 0 {
				t.Errorf("forms are kept: %v, %v", p.packs, err)
			}
			if warns := strings.Contains(log.String(), "level=WARN"); warns != c.warns {
				t.Errorf("the log says %s", log.String())
			}
			if left, _ := filepath.Glob(packs + "/*"); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

// TestCompressedForms opens the store with them, which is the default.
func TestCompressedForms(t *testing.T) {
	cfg := defaultConfig()
	cfg.Root = t.TempDir()
	var p parts
	var started closers
	if err := p.openStore(cfg, slog.New(slog.DiscardHandler), &started); err != nil || p.packs == nil || p.forms() == nil {
		t.Errorf("no forms are kept: %v", err)
	}
	if err := started.close(); err != nil {
		t.Error(err)
	}
	if cfg, err := parse(t, "--config", writeConfig(t, ""), "--store-compressed=false"); err != nil || cfg.Store.Compressed {
		t.Errorf("with the flag that says no: %v, %v", cfg.Store.Compressed, err)
	}
}
