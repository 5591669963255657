package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// link is the name of a machine's network device.
const link = "eth0"

// network is the switch: a namespace with a bridge that machines are attached to. It
// has no way to the host, so its addresses cannot clash with anything.
type network struct {
	lab  *Lab
	hub  *Process
	rate int
}

func newNetwork(ctx context.Context, l *Lab) (*network, error) {
	hub, err := l.holder("switch")
	if err != nil {
		return nil, err
	}
	n := &network{lab: l, hub: hub, rate: l.opts.Rate}
	return n, n.ip(ctx, hub, "link add br0 type bridge", "link set br0 up")
}

// attach gives m a namespace with a link to the switch and an address.
func (n *network) attach(ctx context.Context, m *Machine, number int) error {
	holder, err := n.lab.holder(m.Name)
	if err != nil {
		return err
	}
	m.holder, m.addr = holder, fmt.Sprintf("10.77.0.%d", number)
	port := fmt.Sprintf("port%d", number)
	if err := n.ip(ctx, n.hub,
		fmt.Sprintf("link add %s type veth peer name %s netns %d", port, link, holder.pid()),
		"link set "+port+" master br0 up",
	); err != nil {
		return err
	}
	if err := n.ip(ctx, holder, "link set lo up",
		fmt.Sprintf("addr add %s/24 dev %s", m.addr, link), "link set "+link+" up",
	); err != nil {
		return err
	}
	// The limit is on egress: on both ends of the link, for both directions.
	if err := n.limit(ctx, n.hub, port); err != nil {
		return err
	}
	return n.limit(ctx, holder, link)
}

func (n *network) limit(ctx context.Context, where *Process, dev string) error {
	for _, args := range []string{
		"qdisc add dev " + dev + " root handle 1: htb default 1",
		fmt.Sprintf("class add dev %s parent 1: classid 1:1 htb rate %dmbit quantum 60000", dev, n.rate),
	} {
		if err := n.in(ctx, where, "tc", strings.Fields(args)...); err != nil {
			return err
		}
	}
	return nil
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
