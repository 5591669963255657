package kubo

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// streamBuffer is how much of an answer is held back. What goes wrong before it is full is an
// error like any other, with a status of its own.
const streamBuffer = 256 << 10

// A stream is the body of an answer of which nobody knows beforehand whether it will be whole.
type stream struct {
	w           http.ResponseWriter
	contentType string
	length      int64 // what X-Content-Length says; -1 for nothing
	begun       bool
}

// send answers with what fn writes.
func (s *stream) send(fn func(io.Writer) error) error {
	out := bufio.NewWriterSize(s, streamBuffer)
	err := fn(out)
	if err == nil {
		err = out.Flush()
	}
	if err == nil && !s.begun { // no bytes at all
		s.begin()
		return nil
	}
	if err != nil && s.begun {
		err = fmt.Errorf("%w: %w", errBegun, err)
	}
	return err
}

// begin sets what stock clients know a stream by.
func (s *stream) begin() {
	s.begun = true
	s.w.Header().Set("Content-Type", s.contentType)
	s.w.Header().Set("X-Stream-Output", "1")
	if s.length >= 0 {
		s.w.Header().Set("X-Content-Length", strconv.FormatInt(s.length, 10))
	}
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	if !s.begun {
		s.begin()
	}
	return s.w.Write(p)
}
