//go:build linux

package metafs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/relay"
)

const (
	hello    = "ipcs images"
	mount    = "mount" // with the image and the device; folders of data follow
	ok       = "ok"
	maxReply = 4096
	// maxPacket is more than two paths take, and separator what no path has.
	maxPacket = 16 << 10
	separator = "\x00"
	// filesPerMount is how many files a packet has: an image and a FUSE device.
	filesPerMount = 2
)

// patience is how long a server may take for an answer: one that is stopped is not waited for.
const patience = 30 * time.Second

// ErrGone says that a server ended, or fell silent, before it took what it was given.
var ErrGone = errors.New("the process that serves images is gone")

// A Client hands mounts to a Server.
type Client struct {
	mu   sync.Mutex // held for a packet and its answer
	conn *net.UnixConn
}

// Dial connects to the server that listens at a socket. The server lasts as long as the
// Client.
func Dial(socket string) (*Client, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: socket})
	if err != nil {
		return nil, err
	}
	b := make([]byte, maxReply)
	n, err := readWithin(conn, b)
	if err == nil && string(b[:n]) != hello {
		err = fmt.Errorf("it says %.40q", b[:n])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrGone, socket, err), conn.Close())
	}
	return &Client{conn: conn}, nil
}

// Mount mounts the image at path on dir, which is made if it is not there. With folders of
// data, the server reads files, too, from the first that has one.
func (c *Client) Mount(path, dir string, data ...string) error {
	image, err := os.Open(path)
	if err != nil {
		return err
	}
	defer image.Close()
	dev, err := relay.Mount(dir)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := c.hand(image, dev, data); err != nil {
		return errors.Join(fmt.Errorf("serve %s: %w", path, err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

// hand hands an image and the device of a mount over.
func (c *Client) hand(image, dev *os.File, data []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	rights := unix.UnixRights(int(image.Fd()), int(dev.Fd()))
	if _, _, err := c.conn.WriteMsgUnix([]byte(strings.Join(append([]string{mount}, data...), separator)), rights, nil); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	b := make([]byte, maxReply)
	n, err := readWithin(c.conn, b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if string(b[:n]) != ok {
		return fmt.Errorf("the process that serves images says: %s", b[:n])
	}
	return nil
}

func readWithin(conn *net.UnixConn, b []byte) (int, error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return conn.Read(b)
}

// Close lets the server go, when nothing is mounted.
func (c *Client) Close() error { return c.conn.Close() }

// A request is what a client hands over.
type request struct {
	image, dev *os.File
	data       []string
}

// receive takes one packet, or nil when the client is gone.
func receive(conn *net.UnixConn) (*request, error) {
	b, oob := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(filesPerMount*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		return nil, nil // that is how a client goes
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, ferr := unix.ParseUnixRights(&m)
		err = errors.Join(err, ferr)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	words := strings.Split(string(b[:n]), separator)
	if err == nil && (n == maxPacket || words[0] != mount || len(files) != filesPerMount) {
		err = fmt.Errorf("a packet %.10q with %d files", b[:n], len(files))
	}
	if err == nil {
		return &request{files[0], files[1], words[1:]}, nil
	}
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return nil, err
}
