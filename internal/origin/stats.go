package origin

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts requests since New, and says what is known now.
type Stats struct {
	Requests int64 // to places, that have ended
	Failed   int64 // of these
	Bytes    int64 // that came
	Images   int   // that are known
	Blocks   int   // in the tables that are here
}

type counts struct{ ok, failed, bytes atomic.Int64 }

// Stats returns what was counted.
func (o *Origin) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	failed := o.counts.failed.Load()
	return Stats{o.counts.ok.Load() + failed, failed, o.counts.bytes.Load(), len(o.images), o.index.blocks}
}

// troubleTime is how long a failure is told to those who ask for something else.
const troubleTime = time.Minute

// A failure is the last one of the places. What could not be read may be why it is not known where something else is.
type failure struct {
	mu  sync.Mutex
	err error
	at  time.Time
}

func (f *failure) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.at = err, time.Now()
}

// lately returns it, if it is not long ago.
func (f *failure) lately() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) > troubleTime {
		return nil
	}
	return f.err
}
