package layertest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

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
