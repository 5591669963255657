package origin

import "sync/atomic"

// Stats counts requests since New, and says what is known now.
type Stats struct {
	Requests int64 // to places
	Failed   int64 // of these
	Bytes    int64 // that came
	Images   int   // that are known
	Blocks   int   // in the tables that are here
}

type counts struct{ requests, failed, bytes atomic.Int64 }

// Stats returns what was counted.
func (o *Origin) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Stats{o.counts.requests.Load(), o.counts.failed.Load(), o.counts.bytes.Load(), len(o.images), o.index.blocks}
}
