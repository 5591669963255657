package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// A Type is what Prometheus calls a metric's type.
type Type string

// The types.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

func (t Type) value() prometheus.ValueType {
	if t == Counter {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

// A Family is a metric, with one value for each combination of labels.
type Family struct {
	Name   string
	Type   Type
	Labels []string
	Help   string

	values func(s *Snapshot, emit func(v float64, labels ...string)) // nil for the histogram
}

func (f Family) desc() *prometheus.Desc {
	return prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
}

// Families lists the metrics of this package, without those of the runtime.
func Families() []Family { return families() }

// emit is how a family shows a value.
type emit = func(v float64, labels ...string)

func families() []Family {
	return slices.Concat(readFamilies(), fetchFamilies(), prefetchFamilies(), storeFamilies(), stateFamilies())
}

func readFamilies() []Family {
	return []Family{
		{"ipcs_reads_total", Counter, []string{"source"}, "Reads through FUSE, by where the data came from: disk, or peer if they had to wait. Files that were on disk when they were opened are read without FUSE, and not counted.",
			func(s *Snapshot, emit emit) {
				emit(float64(s.DiskReads), "disk")
				emit(float64(s.PeerReads), "peer")
			}},
		{"ipcs_read_errors_total", Counter, nil, "Reads through FUSE that failed.",
			func(s *Snapshot, emit emit) { emit(float64(s.ReadErrors)) }},
		{"ipcs_read_wait_seconds", Histogram, nil, "How long reads waited for what was not on disk.", nil},
	}
}

func fetchFamilies() []Family {
	return []Family{
		{"ipcs_fetched_files_total", Counter, nil, "Files that were completed.",
			func(s *Snapshot, emit emit) { emit(float64(s.FetchedFiles)) }},
		{"ipcs_fetched_bytes_total", Counter, nil, "Bytes of files that came from peers and registries.",
			func(s *Snapshot, emit emit) { emit(float64(s.FetchedBytes)) }},
		{"ipcs_origin_requests_total", Counter, []string{"result"}, "Requests to registries and other places where images are kept, by what became of them: ok, or failed.",
			func(s *Snapshot, emit emit) {
				emit(float64(s.Origin.Requests-s.Origin.Failed), "ok")
				emit(float64(s.Origin.Failed), "failed")
			}},
		{"ipcs_origin_received_bytes_total", Counter, nil, "Bytes that came from there, compressed as they are there.",
			func(s *Snapshot, emit emit) { emit(float64(s.Origin.Bytes)) }},
		{"ipcs_leaves_in_flight", Gauge, nil, "Leaves (pieces of files, of 1 MiB at most) that are wanted and not here.",
			func(s *Snapshot, emit emit) { emit(float64(s.LeavesInFlight)) }},
		{"ipcs_saved_files_total", Counter, nil, "Files of layers that were pulled which were on disk already. Counted where metrics.address is set.",
			func(s *Snapshot, emit emit) { emit(float64(s.SavedFiles)) }},
		{"ipcs_saved_bytes_total", Counter, []string{"by"}, "Bytes that were not fetched since they were here: by file, of ipcs_saved_files_total; by leaf, of files that were completed.",
			func(s *Snapshot, emit emit) {
				emit(float64(s.SavedFileBytes), "file")
				emit(float64(s.SavedLeafBytes), "leaf")
			}},
		{"ipcs_peer_received_bytes_total", Counter, []string{"peer"}, "Bytes of blocks by the peer they came from, metadata included. The first 32 peers have labels of their own.",
			func(s *Snapshot, emit emit) {
				var others uint64
				for _, p := range s.Peers {
					if p.ID == "" {
						others += p.Received
					} else {
						emit(float64(p.Received), p.ID)
					}
				}
				emit(float64(others), otherPeers)
			}},
		{"ipcs_transfer_bytes_total", Counter, []string{"direction", "of"}, "Bytes that went over ipcs's own protocol, received and sent: of blocks, and of the frames (wire) that they travelled in, most of them compressed. What went over bitswap is not counted.",
			func(s *Snapshot, emit emit) {
				emit(float64(s.Transfer.ReceivedBlocks), "received", "blocks")
				emit(float64(s.Transfer.ReceivedWire), "received", "wire")
				emit(float64(s.Transfer.SentBlocks), "sent", "blocks")
				emit(float64(s.Transfer.SentWire), "sent", "wire")
			}},
		{"ipcs_peers", Gauge, []string{"state"}, "Peers by state: connected, disconnected, refused (for wrong bytes).",
			func(s *Snapshot, emit emit) {
				counts := map[string]float64{"connected": 0, "disconnected": 0, "refused": 0}
				for _, p := range s.Peers {
					counts[p.state()]++
				}
				emitAll(emit, counts)
			}},
	}
}

func (p Peer) state() string {
	switch {
	case p.Refused:
		return "refused"
	case p.Connected:
		return "connected"
	default:
		return "disconnected"
	}
}

func emitAll(emit emit, values map[string]float64) {
	for label, v := range values {
		emit(v, label)
	}
}

func prefetchFamilies() []Family {
	by := func(value func(Prefetched) int64) func(*Snapshot, emit) {
		return func(s *Snapshot, emit emit) {
			for why, p := range s.Prefetched {
				emit(float64(value(p)), why)
			}
		}
	}
	labels := []string{"by"}
	return []Family{
		{"ipcs_prefetched_files_total", Counter, labels, "Whole files that were fetched before anybody waited for them, by what named them: profile, or fill. Counted where metrics.address is set.",
			by(func(p Prefetched) int64 { return p.Files })},
		{"ipcs_prefetched_bytes_total", Counter, labels, "Bytes of ipcs_prefetched_files_total.",
			by(func(p Prefetched) int64 { return p.Bytes })},
		{"ipcs_prefetch_hit_files_total", Counter, labels, "Files of ipcs_prefetched_files_total that were opened since.",
			by(func(p Prefetched) int64 { return p.OpenedFiles })},
		{"ipcs_prefetch_hit_bytes_total", Counter, labels, "Bytes of ipcs_prefetch_hit_files_total.",
			by(func(p Prefetched) int64 { return p.OpenedBytes })},
		{"ipcs_prefetch_unopened_files", Gauge, labels, "Files of ipcs_prefetched_files_total that nobody has opened yet: in the end, the waste.",
			by(func(p Prefetched) int64 { return p.Files - p.OpenedFiles })},
		{"ipcs_prefetch_unopened_bytes", Gauge, labels, "Bytes of ipcs_prefetch_unopened_files.",
			by(func(p Prefetched) int64 { return p.Bytes - p.OpenedBytes })},
	}
}

func storeFamilies() []Family {
	return []Family{
		{"ipcs_store_objects", Gauge, nil, "Files on this disk.",
			func(s *Snapshot, emit emit) { emit(float64(s.StoreObjects)) }},
		{"ipcs_store_used_bytes", Gauge, nil, "What they use, as the limit counts it.",
			func(s *Snapshot, emit emit) { emit(float64(s.StoreUsed)) }},
		{"ipcs_store_compressed_bytes", Gauge, nil, "Of ipcs_store_used_bytes: compressed forms of files, kept for peers. They go first.",
			func(s *Snapshot, emit emit) { emit(float64(s.StoreCompressed)) }},
		{"ipcs_store_limit_bytes", Gauge, nil, "store.limit; 0 is none.",
			func(s *Snapshot, emit emit) { emit(float64(s.StoreLimit)) }},
		{"ipcs_store_held_bytes", Gauge, nil, "What mounts still hold of evicted files. Absent where it is not known.",
			func(s *Snapshot, emit emit) {
				if s.StoreHeld >= 0 {
					emit(float64(s.StoreHeld))
				}
			}},
		{"ipcs_evicted_objects_total", Counter, nil, "Files that were evicted.",
			func(s *Snapshot, emit emit) { emit(float64(s.EvictedObjects)) }},
		{"ipcs_evicted_bytes_total", Counter, nil, "Bytes of ipcs_evicted_objects_total.",
			func(s *Snapshot, emit emit) { emit(float64(s.EvictedBytes)) }},
	}
}

func stateFamilies() []Family {
	return []Family{
		{"ipcs_build_info", Gauge, []string{"version"}, "1, with the daemon's version.",
			func(s *Snapshot, emit emit) { emit(1, s.Version) }},
		{"ipcs_images", Gauge, []string{"fill"}, "Images that containers use, by how far fetching their files has come: opening, profile, filling, retry, off, done.",
			func(s *Snapshot, emit emit) {
				for state, n := range s.Images {
					emit(float64(n), state)
				}
			}},
		{"ipcs_mounted_images", Gauge, nil, "Metadata images (EROFS) that are mounted.",
			func(s *Snapshot, emit emit) { emit(float64(s.Mounted)) }},
		{"ipcs_layers", Gauge, nil, "Layers that snapshots use.",
			func(s *Snapshot, emit emit) { emit(float64(s.Layers)) }},
		{"ipcs_relay_connected", Gauge, nil, "1 while the process that holds the FUSE mount is there.",
			func(s *Snapshot, emit emit) {
				connected := 0.0
				if s.RelayConnected {
					connected = 1
				}
				emit(connected)
			}},
		{"ipcs_relay_restarts_total", Counter, nil, "Processes that were started to hold the FUSE mount because one had died.",
			func(s *Snapshot, emit emit) { emit(float64(s.RelayRestarts)) }},
		{"ipcs_relay_unanswered_requests", Gauge, nil, "Requests of the kernel that wait for the daemon's answer.",
			func(s *Snapshot, emit emit) { emit(float64(s.Unanswered)) }},
	}
}
