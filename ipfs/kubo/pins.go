package kubo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// maxPinReply bounds what is read of the answer to pin/ls: some millions of pins.
const maxPinReply = 512 << 20

// Pin implements ipfs.Pinner.
func (c *Client) Pin(ctx context.Context, pin ipfs.Pin) error {
	if err := checkCid(pin.Root); err != nil {
		return err
	}
	req := c.api.Request("pin/add", pin.Root.String()).Option("recursive", true).Option("fast-provide-root", false)
	if pin.Name != "" {
		req = req.Option("name", pin.Name)
	}
	if err := req.Exec(ctx, nil); err != nil {
		return c.failed(ctx, fmt.Sprintf("pin %s as %q", pin.Root, pin.Name), err)
	}
	return nil
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
	req := c.api.Request("pin/rm", pin.Root.String()).Option("recursive", true).Option("name", pin.Name)
	err = req.Exec(ctx, nil)
	if err != nil && !strings.Contains(err.Error(), notPinnedMessage) {
		return c.failed(ctx, fmt.Sprintf("unpin %s as %q", pin.Root, pin.Name), err)
	}
	return nil
}

// pinReply is one line of the streamed answer to pin/ls.
type pinReply struct {
	Cid  string
	Name string `json:",omitempty"`
	Type string
}

// Pins implements ipfs.Pinner.
func (c *Client) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
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
