package kubo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// importReply is one object of the answer to dag/import.
type importReply struct {
	Root  *rootReply  `json:",omitempty"`
	Stats *statsReply `json:",omitempty"`
}

type rootReply struct {
	Cid         cidLink
	PinErrorMsg string
}

// cidLink is a CID in DAG-JSON.
type cidLink struct {
	Target string `json:"/"`
}

type statsReply struct {
	BlockCount      uint64
	BlockBytesCount uint64
}

// readImport reads the answer to an import to its end, where the daemon says whether
// all went well, and returns the number of blocks it took.
func readImport(r io.Reader) (uint64, error) {
	dec := json.NewDecoder(r)
	n, done := uint64(0), false
	for {
		var reply struct {
			importReply
			errorReply
		}
		err := dec.Decode(&reply)
		switch {
		case errors.Is(err, io.EOF) && done:
			return n, nil
		case errors.Is(err, io.EOF):
			return 0, errors.New("the daemon did not say how many blocks it took")
		case err != nil:
			return 0, fmt.Errorf("read the daemon's answer: %w", err)
		case reply.Message != "":
			return 0, errors.New(reply.Message)
		case reply.Stats != nil:
			n, done = reply.Stats.BlockCount, true
		}
	}
}
