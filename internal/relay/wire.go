package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// What goes over the socket. The relay begins: a greeting, and the nodes that the kernel
// remembers. Then both sides send FUSE messages as the kernel defines them (linux/fuse.h),
// each of which begins with its length: requests to the daemon, of which the first is
// INIT, and answers and notifications to the relay. Integers have the byte order of the
// machine, as FUSE's have.
const (
	magic   = "ipcsfuse"
	version = 1

	requestHeader = 40 // struct fuse_in_header
	replyHeader   = 16 // struct fuse_out_header
	// maxMessage bounds a message: a read of 1 MiB, or a batch of forgotten nodes.
	maxMessage = 1<<20 + 4096
	// maxName bounds the name of a node, as FUSE does.
	maxName = 1024
	// maxNodes bounds the nodes of a greeting.
	maxNodes = 1 << 26

	// endCode is the error number of the message without a request that tells the relay to
	// unmount and to exit. The kernel knows no such notification.
	endCode = 1 << 30
)

// Opcodes of linux/fuse.h that the relay has to know.
const (
	opLookup      = 1
	opForget      = 2
	opFlush       = 25
	opInit        = 26
	opInterrupt   = 36
	opPoll        = 40
	opBatchForget = 42

	// interruptBit is set in the number of an INTERRUPT.
	interruptBit = 1

	// notifyResend is the notification that has the kernel ask again what was not answered,
	// with a bit more in the number of each request (FUSE_NOTIFY_RESEND).
	notifyResend = 7
	// hasResend is set in the second flags of an INIT if the kernel knows it.
	hasResend = 1 << 7
)

var order = binary.NativeEndian

// ErrVersion says that daemon and relay do not speak the same version.
var ErrVersion = errors.New("the process that holds the FUSE mount is of another version")

// A Node is what the kernel remembers of the file system: the answers to its lookups that
// it has not forgotten.
type Node struct {
	ID      uint64
	Parent  uint64
	Name    string
	Size    uint64 // in bytes, as the kernel was told
	Lookups uint64 // that it has not taken back
}

// in is the header of a request.
type in []byte

func (m in) opcode() uint32 { return order.Uint32(m[4:]) }
func (m in) unique() uint64 { return order.Uint64(m[8:]) }
func (m in) node() uint64   { return order.Uint64(m[16:]) }
func (m in) caller() uint32 { return order.Uint32(m[32:]) } // a thread

// interrupted returns the request that an INTERRUPT is about, 0 for none.
func (m in) interrupted() uint64 {
	if len(m) < requestHeader+8 {
		return 0
	}
	return order.Uint64(m[requestHeader:])
}

// out is the header of an answer.
type out []byte

func (m out) code() int32    { return int32(order.Uint32(m[4:])) }
func (m out) unique() uint64 { return order.Uint64(m[8:]) }

// readMessage reads one message of at least min bytes and returns it: in buf, if it has
// room.
func readMessage(r io.Reader, buf []byte, min int) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:min]); err != nil {
		return nil, err
	}
	n := int(order.Uint32(buf))
	if n < min || n > maxMessage {
		return nil, fmt.Errorf("a FUSE message of %d bytes, where %d to %d are possible", n, min, maxMessage)
	}
	if n > len(buf) { // the kernel forgets many nodes at once
		buf = append(make([]byte, 0, n), buf[:min]...)[:n]
	}
	_, err := io.ReadFull(r, buf[min:n])
	return buf[:n], err
}

// errorReply returns the answer to a request that failed with an errno.
func errorReply(unique uint64, errno syscall.Errno) []byte {
	m := make([]byte, replyHeader)
	order.PutUint32(m, replyHeader)
	order.PutUint32(m[4:], uint32(-errno))
	order.PutUint64(m[8:], unique)
	return m
}

// greeting is what the relay begins with.
func greeting(nodes []Node) []byte {
	m := append([]byte(magic), 0, 0, 0, 0)
	order.PutUint32(m[len(magic):], version)
	m = order.AppendUint32(m, uint32(len(nodes)))
	for _, n := range nodes {
		for _, v := range []uint64{n.ID, n.Parent, n.Size, n.Lookups} {
			m = order.AppendUint64(m, v)
		}
		m = order.AppendUint32(m, uint32(len(n.Name)))
		m = append(m, n.Name...)
	}
	return m
}

// readGreeting reads what the relay begins with.
func readGreeting(r io.Reader) ([]Node, error) {
	var head [len(magic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if v := order.Uint32(head[len(magic):]); string(head[:len(magic)]) != magic || v != version {
		return nil, fmt.Errorf("%w: it is %d, this daemon's %d", ErrVersion, v, version)
	}
	count := order.Uint32(head[len(magic)+4:])
	if count > maxNodes {
		return nil, fmt.Errorf("%d nodes, more than %d", count, maxNodes)
	}
	nodes := make([]Node, 0, min(count, 1<<16))
	name := make([]byte, maxName)
	for range count {
		var b [4*8 + 4]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, err
		}
		n := Node{ID: order.Uint64(b[:]), Parent: order.Uint64(b[8:]), Size: order.Uint64(b[16:]), Lookups: order.Uint64(b[24:])}
		length := order.Uint32(b[32:])
		if length > maxName {
			return nil, fmt.Errorf("a name of %d bytes, more than %d", length, maxName)
		}
		if _, err := io.ReadFull(r, name[:length]); err != nil {
			return nil, err
		}
		n.Name = string(name[:length])
		nodes = append(nodes, n)
	}
	return nodes, nil
}
