package thishost_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/thishost"
)

func TestReached(t *testing.T) {
	for _, text := range []string{
		"127.0.0.1", "127.8.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1", "255.255.255.255",
		"::ffff:127.0.0.1", "100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254",
	} {
		if !thishost.Reached(netip.MustParseAddr(text)) {
			t.Errorf("%s is held to be elsewhere", text)
		}
	}
	for _, text := range []string{"10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"} {
		if thishost.Reached(netip.MustParseAddr(text)) {
			t.Errorf("%s is held to be this host", text)
		}
	}
	if !thishost.Reached(netip.Addr{}) {
		t.Error("no address is held to be elsewhere")
	}
}

// TestRefuse dials a name that leads to this host.
func TestRefuse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Control: thishost.Refuse}
	conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort("localhost", port))
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "of this host") {
		t.Errorf("localhost is dialled: %v", err)
	}
}
