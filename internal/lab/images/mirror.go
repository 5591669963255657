package images

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mirror returns the mirror that this machine's apt uses for a suite.
func mirror(suite string) (string, error) {
	lists, err := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	if err != nil {
		return "", err
	}
	for _, file := range append(lists, "/etc/apt/sources.list") {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if url := findMirror(text, suite); url != "" {
			return url, nil
		}
	}
	return "", fmt.Errorf("no mirror for %s in /etc/apt/sources.list or /etc/apt/sources.list.d", suite)
}

// oneLine is a source in apt's older format: deb [options] URI SUITE COMPONENTS.
var oneLine = regexp.MustCompile(`^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s`)

// findMirror looks for the first source of the suite itself, in either of apt's two
// formats.
func findMirror(text []byte, suite string) string {
	var uri string
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0:
			uri = ""
		case fields[0] == "URIs:" && len(fields) > 1:
			uri = fields[1]
		case fields[0] == "Suites:" && uri != "":
			if slices.Contains(fields[1:], suite) {
				return resolveMirror(uri)
			}
		default:
			if m := oneLine.FindStringSubmatch(lines.Text()); m != nil && m[2] == suite {
				return resolveMirror(m[1])
			}
		}
	}
	return ""
}

// resolveMirror follows apt's "mirror+file:" to the first mirror in that file.
func resolveMirror(uri string) string {
	file, ok := strings.CutPrefix(uri, "mirror+file:")
	if !ok {
		return strings.TrimSuffix(uri, "/")
	}
	text, err := os.ReadFile(file)
	if err != nil || len(strings.Fields(string(text))) == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.Fields(string(text))[0], "/")
}

// release returns the code name of the Debian that this machine runs.
func release() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release names no release (VERSION_CODENAME): the demo's image needs a Debian machine; name another image with IMAGE=")
}
