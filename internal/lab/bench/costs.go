package bench

import (
	"errors"
	"time"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// The metrics of what it costs to bring an image, at both ends.
var (
	metricCPUGB       = result.Metric{Name: "cpu-gb", Unit: "s/GB", Better: result.Lower}
	metricPeakAll     = result.Metric{Name: "peak-all", Unit: "B", Better: result.Lower}
	metricServedCPUGB = result.Metric{Name: "server-cpu-gb", Unit: "s/GB", Better: result.Lower}
	metricServedPeak  = result.Metric{Name: "server-peak", Unit: "B", Better: result.Lower}
)

// bothEnds says what these are.
const bothEnds = "`cpu-gb` is what containerd and the system's daemons used on processors for each GB that came over the " +
	"machine's link, `peak-all` the most memory that they held, and `server-cpu-gb` and `server-peak` are the same of those " +
	"who served: the registry, or nodes (processor time of all of them, memory of the one that worked most)."

// costs measures what it takes to bring an image to hosts, from a moment on.
type costs struct {
	site   *system.Site
	served []system.Served
	hosts  []meter
}

// newCosts begins to measure. The memory that servers held before does not count.
func newCosts(site *system.Site, hosts ...*system.Host) (*costs, error) {
	c := &costs{site: site}
	errs := []error{site.ForgetPeaks()}
	var err error
	c.served, err = site.Served()
	errs = append(errs, err)
	for _, h := range hosts {
		m, err := newMeter(h)
		c.hosts, errs = append(c.hosts, m), append(errs, err)
	}
	return c, errors.Join(errs...)
}

// record notes what it took, of all hosts together and, of memory, of the one that held most.
func (c *costs) record(r *Run, round int, name string) error {
	var received, peak int64
	var cpu time.Duration
	for _, m := range c.hosts {
		took, err := m.read()
		if err != nil {
			return err
		}
		received, cpu, peak = received+took.received, cpu+took.cpu, max(peak, took.peakAll)
	}
	after, err := c.site.Served()
	if err != nil {
		return err
	}
	var servedCPU, most time.Duration
	var servedPeak int64
	for i, s := range after {
		used := s.CPU - c.served[i].CPU
		servedCPU += used
		if used >= most {
			most, servedPeak = used, s.Peak
		}
	}
	gb := float64(received) / 1e9
	r.Log("%-18s for each GB: processors %.1f s, those of who served %.1f s; most memory %.0f and %.0f MB",
		name, cpu.Seconds()/gb, servedCPU.Seconds()/gb, float64(peak)/1e6, float64(servedPeak)/1e6)
	r.Record(round, name, metricCPUGB, cpu.Seconds()/gb)
	r.Record(round, name, metricPeakAll, float64(peak))
	r.Record(round, name, metricServedCPUGB, servedCPU.Seconds()/gb)
	r.Record(round, name, metricServedPeak, float64(servedPeak))
	return nil
}
