package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// link is the name of a machine's network device.
const link = "eth0"

// maxMachines is how many have an address: 10.77.0.1 to 10.77.0.250.
const maxMachines = 250

// errNoLink is what comes of everything about links in a lab without a rate.
var errNoLink = errors.New("machines have no links of their own in a lab without a rate")

// gateway is the router's address, at its end of each link.
const gateway = "10.77.255.254"

// Congestion is the control of TCP's congestion in all machines, whatever the host
// has: it is Linux's own default, and Debian's, and with another the same links carry
// other rates, above all with a round trip on them.
const Congestion = "cubic"

// network is the router: a namespace that all links lead to. It has no way to the
// host, so its addresses cannot clash with anything.
//
// A bridge would do for a few machines. But each would then know the hardware address
// of each other one that it speaks to, and the kernel has one table for all namespaces,
// of 1024 places by default, which 32 machines fill. With a router it is one a machine,
// and one for it.
type network struct {
	lab  *Lab
	hub  *Process
	rate int
}

func newNetwork(ctx context.Context, l *Lab) (*network, error) {
	hub, err := l.holder("router")
	if err != nil {
		return nil, err
	}
	n := &network{lab: l, hub: hub, rate: l.opts.Rate}
	return n, n.in(ctx, hub, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
}

// attach gives m a namespace with a link to the router and an address. The rate of
// the link is that of the network if it is 0.
func (n *network) attach(ctx context.Context, m *Machine, number, rate int) error {
	if number > maxMachines {
		return fmt.Errorf("the lab has addresses for %d machines", maxMachines)
	}
	if rate == 0 {
		rate = n.rate
	}
	holder, err := n.lab.holder(m.Name)
	if err != nil {
		return err
	}
	m.holder, m.addr = holder, fmt.Sprintf("10.77.0.%d", number)
	m.plug = fmt.Sprintf("port%d", number)
	if err := n.ip(ctx, n.hub,
		fmt.Sprintf("link add %s type veth peer name %s netns %d", m.plug, link, holder.pid()),
		fmt.Sprintf("addr add %s/32 dev %s", gateway, m.plug), "link set "+m.plug+" up",
		fmt.Sprintf("route add %s/32 dev %s", m.addr, m.plug),
	); err != nil {
		return err
	}
	if err := n.ip(ctx, holder, "link set lo up",
		fmt.Sprintf("addr add %s/32 dev %s", m.addr, link), "link set "+link+" up",
		fmt.Sprintf("route add %s/32 dev %s", gateway, link),
		fmt.Sprintf("route add 10.77.0.0/16 via %s dev %s", gateway, link),
	); err != nil {
		return err
	}
	if err := n.control(ctx, m); err != nil {
		return err
	}
	for where, dev := range m.ends(n.hub) {
		if err := n.tc(ctx, where, "qdisc add dev "+dev+" root handle 1: htb default 1"); err != nil {
			return err
		}
	}
	return n.limit(ctx, m, rate)
}

// control sets how m controls congestion, route by route: a namespace has the host's
// default, and may only be given another that the host lets every user have.
func (n *network) control(ctx context.Context, m *Machine) error {
	const local = " dev lo table local proto kernel scope host congctl " + Congestion
	err := n.ip(ctx, m.holder,
		fmt.Sprintf("route change 10.77.0.0/16 via %s dev %s congctl %s", gateway, link, Congestion),
		"route change local 127.0.0.1"+local, "route change local "+m.addr+local,
	)
	if err != nil {
		return fmt.Errorf("TCP shall control congestion with %[1]s, which the kernel must have "+
			"(modprobe tcp_%[1]s; see net.ipv4.tcp_available_congestion_control): %[2]w", Congestion, err)
	}
	return nil
}

// ends are the devices that send into the link of m, each in the namespace of a
// process. HTB limits what a device sends, so that both are needed to limit both
// directions.
func (m *Machine) ends(hub *Process) map[*Process]string {
	return map[*Process]string{hub: m.plug, m.holder: link}
}

// limit sets what the link of m carries in each direction, in Mbit/s.
//
// HTB wakes up by a timer and then sends what has become due; what is due for longer
// than the burst is forgotten. The default burst, about one packet, loses some percent
// of 1 Gbit/s, and a third of 10, to timers that are late. A burst of two milliseconds
// loses nothing, and is short against anything that is measured. The quantum matters
// between classes, of which there is one; HTB warns without it.
func (n *network) limit(ctx context.Context, m *Machine, mbit int) error {
	if mbit < 1 {
		return fmt.Errorf("a link of %d Mbit/s: want 1 or more", mbit)
	}
	const mtu = 1514
	burst := max(mbit*1_000_000/8*2/1000, 2*mtu)
	for where, dev := range m.ends(n.hub) {
		if err := n.tc(ctx, where, fmt.Sprintf(
			"class replace dev %s parent 1: classid 1:1 htb rate %dmbit burst %d cburst %d quantum 60000", dev, mbit, burst, burst,
		)); err != nil {
			return err
		}
	}
	return nil
}

// tc runs a command of tc(8) in the namespace of a process.
func (n *network) tc(ctx context.Context, where *Process, command string) error {
	return n.in(ctx, where, "tc", strings.Fields(command)...)
}

// ip runs commands of ip(8) in the namespace of a process.
func (n *network) ip(ctx context.Context, where *Process, commands ...string) error {
	for _, c := range commands {
		if err := n.in(ctx, where, "ip", strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) in(ctx context.Context, where *Process, name string, args ...string) error {
	args = append([]string{"--net=" + where.netns(), "--", name}, args...)
	if out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args[2:], " "), err, out)
	}
	return nil
}

// holder starts a process that keeps a network namespace by sleeping in it.
func (l *Lab) holder(name string) (*Process, error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return l.start("namespace of "+name, "", cmd)
}
