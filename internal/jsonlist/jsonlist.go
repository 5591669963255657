// Package jsonlist decodes arrays of JSON that come from anybody. encoding/json makes all
// elements before anybody can count them, and what is decoded can take a hundred times the room
// of its text; Decode counts first.
//
// The package has no state.
package jsonlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

var (
	// ErrSyntax says that a text is no array of such elements.
	ErrSyntax = errors.New("no list")
	// ErrTooMany says that an array has too many elements.
	ErrTooMany = errors.New("too many elements")
)

// Decode decodes an array of at most so many elements. Nothing, and null, are an empty one.
func Decode[T any](text json.RawMessage, most int) ([]T, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if start, err := dec.Token(); err != nil || start != json.Delim('[') {
		return nil, ErrSyntax
	}
	var out []T
	for dec.More() {
		if len(out) == most {
			return nil, fmt.Errorf("%w: more than the %d allowed", ErrTooMany, most)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
		}
		out = append(out, v)
	}
	if end, err := dec.Token(); err != nil || end != json.Delim(']') {
		return nil, ErrSyntax
	}
	return out, nil
}
