//go:build linux

package listening

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

const titles = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// FuzzTable has tables that are none make no sockets that cannot be.
func FuzzTable(f *testing.F) {
	own, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		f.Fatal(err)
	}
	for _, table := range []string{
		string(own), "", titles,
		titles + "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0\n",
		titles + "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 18446744073709551615 1\n",
		"0: x:1F90 y 0A 0 0 0 0 0 -1", "0: 1F90 y 0A 0 0 0 0 0 1", "0: :11F90 y 0A 0 0 0 0 0 1",
	} {
		f.Add(table)
	}
	f.Fuzz(func(t *testing.T, table string) {
		sockets := make(map[string]bool)
		if err := parseTable(strings.NewReader(table), 8080, sockets); err != nil {
			return
		}
		for socket := range sockets {
			inode := strings.TrimSuffix(strings.TrimPrefix(socket, "socket:["), "]")
			if strings.Trim(inode, "0123456789") != "" || !strings.Contains(table, inode) || !strings.Contains(strings.ToUpper(table), "1F90") {
				t.Errorf("there is no socket %q on port 8080 in %q", socket, table)
			}
		}
	})
}

// TestTable reads two sockets out of five.
func TestTable(t *testing.T) {
	sockets := make(map[string]bool)
	table := titles +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0\n" +
		"   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100 0 0 10 0\n" +
		"   2: 0100007F:1F90 0100007F:A0B2 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 100 0 0 10 0\n" +
		"   3: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 14 1 0000000000000000 100 0 0 10 0\n" +
		"   4: 0100007F:A0B2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 15 1 0000000000000000 100 0 0 10 0\n"
	if err := parseTable(strings.NewReader(table), 8080, sockets); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(sockets)); !slices.Equal(got, []string{"socket:[11]", "socket:[14]"}) {
		t.Errorf("sockets %q", got)
	}
	for _, wrong := range []string{"0: x:1F9G y 0A 0 0 0 0 0 1", "0: x:1F90 y 0A 0 0 0 0 0 z"} {
		if err := parseTable(strings.NewReader(wrong), 8080, sockets); err == nil {
			t.Errorf("%q is a table", wrong)
		}
	}
}
