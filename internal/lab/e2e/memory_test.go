package e2e

import (
	"testing"

	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestManyFiles runs a container of an image of 100,000 files, and one of an image of 100 layers:
// the daemon takes less than a KiB a file at most, and half of that in the end.
func TestManyFiles(t *testing.T) {
	labtest.Nightly(t)
	const files, most = 100_000, 1 << 10
	w := newWorld(t, "many", 0)
	deep, wide := w.convert(w.push(labtest.Image(t, "layers-100"))), w.convert(w.push(labtest.Image(t, "files-100k")))
	w.pull(deep, "ipcs")
	w.run("deep", deep, "ipcs", "true")
	before, err := w.daemon.Resident()
	w.must(err)
	w.pull(wide, "ipcs")
	w.run("wide", wide, "ipcs", "true")
	after, err := w.daemon.Resident()
	w.must(err)
	peak, err := w.daemon.Peak()
	w.must(err)
	t.Logf("before %d bytes resident, then %d bytes a file, and %d at most", before, (after-before)/files, (peak-before)/files)
	if (after-before)/files > most/2 || (peak-before)/files > most {
		t.Errorf("%d bytes a file are resident, and %d were at most", (after-before)/files, (peak-before)/files)
	}
}
