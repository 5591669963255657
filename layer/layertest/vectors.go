package layertest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
)

// update has vectors written in place of compared:
//
//	go test ./layer ./internal/convert ./internal/imagedir ./internal/seed -p 1 -run Vectors -update
var update = flag.Bool("update", false, "write what the tables make of spec/testdata anew")

// KeepVectors holds a file of vectors to what a table makes, or writes that with -update, and
// returns what is in the file.
func KeepVectors(t testing.TB, file string, made []byte) []byte {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, made, 0o644); err != nil {
			t.Fatal(err)
		}
		return made
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, made) {
		t.Errorf("%s is not what the table makes (%v); run the test with -update", file, err)
	}
	return have
}

// DecodeCases decodes the cases of a file, all of whose fields must be known.
func DecodeCases[V any](t testing.TB, b []byte) []V {
	t.Helper()
	var all []V
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// EncodeCases writes the cases of a file of vectors, one a line.
func EncodeCases[V any](t testing.TB, all []V) []byte {
	t.Helper()
	lines := make([]string, len(all))
	for i, v := range all {
		lines[i] = "  " + string(EncodeCase(t, v))
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n")
}

// EncodeCase is the JSON of a case.
func EncodeCase(t testing.TB, v any) json.RawMessage {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// SplitImageCases tells the cases of image.json with records, which package layer makes, from
// those with originals, which package convert makes. Each keeps those of the other as they are.
func SplitImageCases(t testing.TB, b []byte) (records, originals []json.RawMessage) {
	t.Helper()
	if len(b) == 0 {
		return nil, nil // there is no file yet
	}
	var all []json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, raw := range all {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatal(err)
		}
		if _, ok := fields["record"]; ok {
			records = append(records, raw)
		} else {
			originals = append(originals, raw)
		}
	}
	return records, originals
}
