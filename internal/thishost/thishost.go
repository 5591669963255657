// Package thishost tells the addresses of this host and its links from all others.
//
// Where an image or a peer says where to go, nobody knows who said it first. What listens on loopback, or
// on the link as the metadata services of clouds do, trusts whoever reaches it: so nothing that comes from outside
// may lead there. Private addresses are no better known than public ones: registries and peers of a site have them.
package thishost

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// metadata are addresses where clouds tell machines what they are, and more, that are no link-local ones.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("100.100.100.200"),
}

// Reached says whether an address leads to this host, or to its link: loopback, unspecified, link-local, multicast or broadcast.
func Reached(ip netip.Addr) bool {
	ip = ip.Unmap()
	return !ip.IsValid() || slices.Contains(metadata, ip) || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() ||
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// Refuse is a net.Dialer's Control that lets nobody connect to such an address, whatever name had led there.
func Refuse(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	if Reached(addr.Addr()) {
		return fmt.Errorf("%s is an address of this host or its link, where nothing from outside may lead", addr.Addr())
	}
	return nil
}
