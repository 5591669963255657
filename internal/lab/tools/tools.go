// Package tools gets the programs of others that the lab needs: stock containerd,
// runc, a registry and Kubo, built from the Go module proxy at pinned versions, and
// Debian packages from the apt that the machine has.
//
// A built program stands in DIR/NAME, and DIR/NAME.version says what was built, so
// that a program is built again only when its pin changes. `go install` (`go build` for
// a module that cannot be installed) writes to a folder of its own and the result is
// renamed into place: a run that is killed leaves nothing half done, and two runs at
// once only waste time.
//
// The package has no state and imports nothing but the standard library, so that
// it compiles in a second on a bare machine, before anything else does.
package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A build is one run of the go command: the packages of one module at one version.
type build struct {
	module, version string
	packages        []string // below module; "" is the module itself
	cgo             bool
	tags            string
	// inside builds in the module's own folder. `go install` asks the proxy for the list
	// of a module's versions, to see whether this one was withdrawn, and proxies do not
	// give the list of every module; nor does it take a go.mod that replaces modules.
	inside bool
	tests  bool // the programs are tests: `go test -c` makes them
}

// builds are the pins. What is built without cgo is static and needs no C compiler.
var builds = []build{
	{
		module: "github.com/containerd/containerd/v2", version: "v2.4.2",
		packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"},
	},
	{module: "github.com/distribution/distribution/v3", version: "v3.1.2", packages: []string{"cmd/registry"}},
	{module: "github.com/opencontainers/runc", version: "v1.5.2", packages: []string{""}, cgo: true, tags: "seccomp"},
	{module: "github.com/ipfs/kubo", version: "v0.43.0", packages: []string{"cmd/ipfs"}, inside: true},
	{module: "github.com/moby/buildkit", version: "v0.26.2", packages: []string{"cmd/buildkitd", "cmd/buildctl"}, inside: true},
	{module: "sigs.k8s.io/cri-tools", version: "v1.37.0", packages: []string{"cmd/critest"}, inside: true, tests: true},
	{module: "github.com/hanwen/go-fuse/v2", version: "v2.12.1", packages: []string{"posixtest"}, inside: true, tests: true},
	// Of the module there are no releases; the suite that can test read-only registries is of 2026.
	{
		module: "github.com/opencontainers/distribution-spec/conformance", version: "v0.0.0-20260831232431-97274622c111",
		packages: []string{""}, inside: true,
	},
	{module: "honnef.co/go/tools", version: "v0.8.2", packages: []string{"cmd/staticcheck"}},
	{module: "github.com/OpenPeeDeeP/depguard/v2", version: "v2.3.0", packages: []string{"cmd/depguard"}},
}

// Lab are the programs that the lab runs, BuildKit, Conformance, CRI, Kubo and Posix those that
// some tests run besides, and Lint the linters.
var (
	Lab         = []string{"containerd", "ctr", "containerd-shim-runc-v2", "runc", "registry"}
	Kubo        = []string{"ipfs"}
	BuildKit    = []string{"buildkitd", "buildctl"}
	Conformance = []string{"conformance"}
	CRI         = []string{"critest"}
	Posix       = []string{"posixtest"}
	Lint        = []string{"staticcheck", "depguard"}
)

// ErrUnknown is returned for a name that no pin stands for.
var ErrUnknown = errors.New("no such tool")

// Programs returns the names of the programs that the build makes.
func (b build) programs() []string {
	var names []string
	for _, p := range b.packages {
		if p == "" {
			p = b.module
		}
		names = append(names, filepath.Base(p))
	}
	return names
}

// Ensure makes the named programs available in dir, building those that are not
// there at their pinned version. What it builds is written to log.
func Ensure(ctx context.Context, dir string, log func(format string, args ...any), names ...string) error {
	dir, err := filepath.Abs(dir) // go install takes no other
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	for _, b := range builds {
		need := false
		for _, name := range b.programs() {
			if wanted[name] {
				need = need || !current(dir, name, b.stamp())
				delete(wanted, name)
			}
		}
		if !need {
			continue
		}
		log("building %s from %s", strings.Join(b.programs(), ", "), b.stamp())
		if err := b.install(ctx, dir); err != nil {
			return err
		}
	}
	for name := range wanted {
		return fmt.Errorf("tool %q: %w", name, ErrUnknown)
	}
	return nil
}

// source is the module at the version.
func (b build) source() string { return b.module + "@" + b.version }

func (b build) stamp() string {
	if b.tags != "" {
		return b.source() + " " + b.tags
	}
	return b.source()
}

// current says whether dir holds the program as the stamp says.
func current(dir, name, stamp string) bool {
	have, err := os.ReadFile(filepath.Join(dir, name+".version"))
	if err != nil || strings.TrimSpace(string(have)) != stamp {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, name))
	return err == nil
}

// install builds the programs and puts them into dir.
func (b build) install(ctx context.Context, dir string) error {
	if b.cgo {
		if err := Packages(ctx, headers()); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := b.compile(ctx, tmp); err != nil {
		return fmt.Errorf("build %s: %w", b.stamp(), err)
	}
	return b.place(tmp, dir)
}

// compile builds the programs into tmp.
func (b build) compile(ctx context.Context, tmp string) error {
	cgo := "CGO_ENABLED=0"
	if b.cgo {
		cgo = "CGO_ENABLED=1"
	}
	env := []string{"GOBIN=" + tmp, "GOFLAGS=-buildvcs=false", "GOWORK=off", cgo}
	flags := []string{"-trimpath", "-ldflags=-s -w", "-tags=" + b.tags}
	if !b.inside {
		args := append([]string{"install"}, flags...)
		for _, p := range b.packages {
			args = append(args, strings.TrimSuffix(b.module+"/"+p, "/")+"@"+b.version)
		}
		_, err := goCommand(ctx, tmp, env, args...)
		return err
	}
	dir, err := Module(ctx, b.source())
	if err != nil {
		return err
	}
	args := []string{"build", "-mod=readonly", "-o", tmp + "/"}
	if b.tests {
		args = []string{"test", "-c", "-mod=readonly", "-o", filepath.Join(tmp, b.programs()[0])}
	}
	args = append(args, flags...)
	for _, p := range b.packages {
		args = append(args, "./"+p)
	}
	_, err = goCommand(ctx, dir, env, args...)
	return err
}

// Module gets a module, NAME@VERSION, from the module proxy and returns its folder,
// which is not to be changed.
func Module(ctx context.Context, module string) (dir string, err error) {
	out, err := goCommand(ctx, os.TempDir(), nil, "mod", "download", "-json", module)
	if err != nil {
		return "", fmt.Errorf("module %s: %w", module, err)
	}
	var got struct{ Dir string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("module %s: what go mod download says: %w", module, err)
	}
	return got.Dir, nil
}

// goCommand runs the go command in dir and returns what it prints.
func goCommand(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir // not in a module of ours: the tool's own go.mod decides
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s%s", args[0], err, out, stderr.Bytes())
	}
	return out, nil
}

// place renames what was built into dir, the stamp last.
func (b build) place(tmp, dir string) error {
	for _, name := range b.programs() {
		if err := os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name)); err != nil {
			return err
		}
		stamp := filepath.Join(tmp, name+".version")
		if err := os.WriteFile(stamp, []byte(b.stamp()+"\n"), 0o644); err != nil {
			return err
		}
		if err := os.Rename(stamp, filepath.Join(dir, name+".version")); err != nil {
			return err
		}
	}
	return nil
}
