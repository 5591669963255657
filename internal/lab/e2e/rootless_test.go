package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// listTree prints all that a container sees of its image but sizes of directories, which
// depend on the file system, and what runc mounts.
const listTree = `cd / && find . -mindepth 1 \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run \) -prune -o ` +
	`\( -type d -printf '%y %m %U %G %T@ %p\n' -o -printf '%y %m %U %G %s %n %T@ %p %l\n' \) | LC_ALL=C sort`

// changeTree changes what the image has, in all the ways that an overlay keeps differently,
// and prints what comes of it.
const changeTree = `cd /usr/share && chmod 700 /usr/bin/env && echo more >>/etc/passwd && rm -r doc && mkdir doc && echo new >doc/new && ` +
	`mv man man2 && rm /usr/bin/yes && ln /usr/bin/env /usr/bin/yes && chown 65534:65534 /etc/hostname && ` +
	`stat -c '%A %u %g %s %n' /usr/bin/env /usr/bin/yes /etc/passwd /etc/hostname doc/* man2 && find man2 -type f | sort | head -n 20 | xargs sha256sum && ls doc man2`

// TestRootless runs containerd and the daemon as a user without root rights: an image that is
// pulled shows the tree that overlayfs shows with root, is read when it is read, also while the
// daemon is killed, can be written, and ordinary images work beside it. The second time the
// files are served over FUSE, too, which the first time they are before Linux 6.16.
func TestRootless(t *testing.T) {
	labtest.Nightly(t)
	hosttest.Root(t)
	w := newWorld(t, "rootless", 0)
	if out, err := exec.Command("setpriv", "--reuid", "23456", "--regid", "23456", "--clear-groups", "unshare", "--user", "true").CombinedOutput(); err != nil {
		hosttest.Lacking(t, "user namespaces for users without root rights: "+string(out))
	}
	plain := w.push(labtest.Image(t, "debian"))
	w.pull(plain, "overlayfs")
	var want [3]string
	for i, script := range []string{listTree, changeTree, hashSome} {
		want[i] = w.run("want", plain, "overlayfs", "sh", "-c", script)
	}
	ref, ordinary := w.convert(plain), w.push(labtest.Image(t, "busybox"))
	status, err := w.source.Status(t.Context())
	w.must(err)
	user, err := w.consume.Rootless(t.Context())
	w.must(err)
	for _, data := range []string{"auto", "served"} {
		t.Run(data, func(t *testing.T) {
			r := &rootless{user, w.with(t)}
			w.must(user.Start(t.Context(), lab.RootlessOptions{Peers: status.Addrs, Data: data}))
			r.ctr("image", "pull", "--plain-http", "--snapshotter", "ipcs", ref)
			r.equal(r.run(ref, "sh", "-c", listTree), want[0])
			r.equal(r.run(ref, "sh", "-c", changeTree), want[1])
			r.killed(ref, want[2])
			r.ctr("image", "pull", "--plain-http", "--snapshotter", "ipcs", ordinary)
			r.equal(r.run(ordinary, "sh", "-c", "rm /bin/ls; echo $(id -u) >/new; cat /new; test -e /bin/ls || echo gone"), "0\ngone\n")
			w.must(user.Stop())
		})
	}
}

// rootless is a user's side of a world.
type rootless struct {
	*lab.Rootless
	w *world
}

func (r *rootless) output(name string, args ...string) string {
	r.w.t.Helper()
	out, err := lab.Output(r.Command(r.w.t.Context(), name, args...))
	if err != nil {
		r.w.t.Fatalf("%v\n%s", err, r.Tail())
	}
	return out
}

func (r *rootless) ctr(args ...string) string {
	r.w.t.Helper()
	return r.output("ctr", args...)
}

// runArgs are those of ctr run without cgroups, which the user may not make here.
func runArgs(args ...string) []string {
	return append([]string{"run", "--snapshotter", "ipcs", "--cgroup", "", "--cpu-shares", "0"}, args...)
}

func (r *rootless) run(ref string, command ...string) string {
	r.w.t.Helper()
	const log = "/run/output.log" // see world.output
	r.ctr(runArgs(append([]string{"--rm", "--log-uri", "file://" + log, ref, r.w.id("c")}, command...)...)...)
	return r.output("sh", "-c", "cat "+log+" && rm "+log)
}

func (r *rootless) equal(got, want string) {
	r.w.t.Helper()
	if got == want {
		return
	}
	missing, more := diffLines(want, got), diffLines(got, want)
	r.w.t.Errorf("%d lines of output are missing and %d too many:\n%s\nin place of\n%s", len(missing), len(more),
		strings.Join(more[:min(len(more), 10)], ""), strings.Join(missing[:min(len(missing), 10)], ""))
}

// killed has a container read what is not here while the daemon is killed.
func (r *rootless) killed(ref, want string) {
	r.w.t.Helper()
	r.ctr(runArgs("--detach", ref, r.w.id("reader"), "sleep", "infinity")...)
	read := make(chan string)
	go func() {
		out, err := lab.Output(r.Command(r.w.t.Context(), "ctr", "task", "exec", "--exec-id", "hash", r.w.id("reader"), "sh", "-c", hashSome))
		if err != nil {
			out = err.Error()
		}
		read <- out
	}()
	for range 3 {
		r.output("sh", "-c", `kill -9 $(ipcs-snapshotter status --wait 60s --json | sed 's/.*"pid": *\([0-9]*\).*/\1/')`)
	}
	r.equal(<-read, want)
	status := r.output("ipcs-snapshotter", "status", "--wait", "60s", "--json")
	if !strings.Contains(status, `"mode":"fuse"`) {
		r.w.t.Errorf("status is %s", status)
	}
	r.ctr("task", "rm", "--force", r.w.id("reader"))
	r.ctr("container", "rm", r.w.id("reader"))
}
