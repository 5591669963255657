package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/hinshun/ipcs/internal/relay"
)

// spareWatched is how often the daemon looks whether somebody keeps the device of its lazy files.
const spareWatched = time.Minute

// noSpare says what is lost without, and what to do.
const noSpare = "the process that keeps the FUSE device is gone: should the one that holds the mount die, containers lose what they have not read; restart the daemon when there is no container on an ipcs image"

// watchSpare says in the log when there is no spare at a socket, at once and later, until ctx is
// done.
func watchSpare(ctx context.Context, socket string, interval time.Duration, log *slog.Logger) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for found := true; ; {
		err := relay.FindSpare(socket)
		switch {
		case err != nil && found:
			log.Error(noSpare, "err", err)
		case err == nil && !found:
			log.Info("there is a process that keeps the FUSE device again")
		}
		found = err == nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
