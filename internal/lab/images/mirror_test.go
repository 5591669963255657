package images

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindMirror(t *testing.T) {
	list := filepath.Join(t.TempDir(), "mirrors")
	if err := os.WriteFile(list, []byte("http://first.example/debian/\nhttp://second.example/debian\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"deb822": {"Types: deb\n# a comment\nURIs: http://a.example/debian/\nSuites: bookworm bookworm-updates\n", "http://a.example/debian"},
		"second paragraph": {
			"URIs: http://a.example/security\nSuites: bookworm-security\n\nURIs: http://b.example/debian\nSuites: bookworm\n",
			"http://b.example/debian",
		},
		"one line":      {"deb http://a.example/debian bookworm main\n", "http://a.example/debian"},
		"options":       {"deb [arch=amd64 signed-by=/k:/x] http://a.example/debian bookworm main\n", "http://a.example/debian"},
		"other release": {"deb http://a.example/debian trixie main\n", ""},
		"disabled":      {"# deb http://a.example/debian bookworm main\n", ""},
		"mirror list":   {"deb mirror+file:" + list + " bookworm main\n", "http://first.example/debian"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := findMirror([]byte(c.text), "bookworm"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
