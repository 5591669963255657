package kubo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// maxPinReply bounds what is read of the answer to pin/ls: some millions of pins.
const maxPinReply = 512 << 20

// Pin implements ipfs.Pinner. Kubo fetches what it lacks of the DAG; the error is
// ipfs.ErrNotFound, wrapped, when it gets no further for as long as it may look for a block.
func (c *Client) Pin(ctx context.Context, pin ipfs.Pin) error {
	if err := checkCid(pin.Root); err != nil {
		return err
	}
	return c.patiently(ctx, func() error { return c.pin(ctx, pin) })
}

func (c *Client) pin(ctx context.Context, pin ipfs.Pin) error {
	what := fmt.Sprintf("pin %s as %q", pin.Root, pin.Name)
	req := c.api.Request("pin/add", pin.Root.String()).Option("recursive", true).
		Option("fast-provide-root", false).Option("progress", true).Option(completeOption, true)
	if pin.Name != "" {
		req = req.Option("name", pin.Name)
	}
	pinning, stop := context.WithCancel(ctx)
	defer stop()
	resp, err := c.send(pinning, req)
	if err != nil {
		return c.failed(ctx, what, err)
	}
	defer resp.Cancel()
	var stuck *time.Timer // runs once the daemon has said how far it is: ours does not
	err = readPinned(resp.Output, func() {
		if stuck == nil {
			stuck = time.AfterFunc(c.opts.Timeout, stop)
		}
		stuck.Reset(c.opts.Timeout)
	})
	if stuck != nil {
		stuck.Stop()
	}
	if err != nil && pinning.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w in %s by the IPFS daemon at %s: a block of the DAG is missing, maybe since garbage was collected before this pin; put the DAG there again",
			what, ipfs.ErrNotFound, c.opts.Timeout, c.addr)
	}
	if err != nil {
		return c.failed(ctx, what, err)
	}
	return nil
}

// readPinned reads the answer to pin/add to its end, and calls progress whenever the daemon has
// got further.
func readPinned(r io.Reader, progress func()) error {
	dec := json.NewDecoder(r)
	last, done := -1, false
	for {
		var reply struct {
			Pins     []string
			Progress int
			Message  string
		}
		err := dec.Decode(&reply)
		switch {
		case errors.Is(err, io.EOF) && done:
			return nil
		case err != nil:
			return fmt.Errorf("read the daemon's answer: %w", err)
		case reply.Message != "":
			return errors.New(reply.Message)
		case len(reply.Pins) > 0:
			done = true
		case reply.Progress > last:
			last = reply.Progress
			progress()
		}
	}
}

// Unpin implements ipfs.Pinner.
func (c *Client) Unpin(ctx context.Context, pin ipfs.Pin) error {
	if err := checkCid(pin.Root); err != nil {
		return err
	}
	// pin/rm of Kubo knows no names, and would remove a pin with another name.
	pins, err := c.Pins(ctx, pin.Name)
	if err != nil {
		return err
	}
	if !slices.Contains(pins, pin) {
		return nil
	}
	return c.patiently(ctx, func() error {
		req := c.api.Request("pin/rm", pin.Root.String()).Option("recursive", true).Option("name", pin.Name)
		err := req.Exec(ctx, nil)
		if err != nil && !strings.Contains(err.Error(), notPinnedMessage) {
			return c.failed(ctx, fmt.Sprintf("unpin %s as %q", pin.Root, pin.Name), err)
		}
		return nil
	})
}

// pinReply is one line of the streamed answer to pin/ls.
type pinReply struct {
	Cid  string
	Name string `json:",omitempty"`
	Type string
}

// Pins implements ipfs.Pinner.
func (c *Client) Pins(ctx context.Context, name string) (pins []ipfs.Pin, err error) {
	err = c.patiently(ctx, func() (err error) {
		pins, err = c.pins(ctx, name)
		return err
	})
	return pins, err
}

func (c *Client) pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	req := c.api.Request("pin/ls").Option("type", "recursive").Option("names", true).Option("stream", true)
	if name != "" {
		req = req.Option("name", name) // any name that contains it
	}
	resp, err := c.send(ctx, req)
	if err != nil {
		return nil, c.failed(ctx, "list pins", err)
	}
	defer resp.Cancel()
	pins, err := readPins(resp.Output, name)
	if err != nil {
		return nil, c.failed(ctx, "list pins", err)
	}
	return pins, nil
}

func readPins(r io.Reader, name string) ([]ipfs.Pin, error) {
	var pins []ipfs.Pin
	dec := json.NewDecoder(r)
	for {
		var reply struct {
			pinReply
			Message string
		}
		err := dec.Decode(&reply)
		if errors.Is(err, io.EOF) {
			return pins, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		}
		if reply.Message != "" {
			return nil, errors.New(reply.Message)
		}
		root, err := cid.Decode(reply.Cid)
		if err != nil {
			return nil, fmt.Errorf("read the daemon's answer: CID %q: %w", reply.Cid, err)
		}
		if name == "" || reply.Name == name {
			pins = append(pins, ipfs.Pin{Root: root, Name: reply.Name})
		}
	}
}
