package images

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recipes are the images that Ensure makes.
var recipes = cookbook{
	// Debian, as it was released and with what was mended since.
	"base":         {version: "1", make: bootstrap{}.make},
	"base-updated": {version: "1", make: bootstrap{updated: true}.make},

	// What people run, on one and the same base layer.
	"debian": {version: "2", from: "base", make: dockerfile{
		steps:  []string{install("python3", "python3-pip"), clean},
		config: config("python3"),
	}.make},
	"node": {version: "1", from: "base", make: dockerfile{
		steps:  []string{install("nodejs", "npm"), clean},
		config: config("node"),
	}.make},
	"postgres": {version: "1", from: "base", make: dockerfile{
		steps: []string{
			install("postgresql"), clean,
			`sed -i "s/^#listen_addresses.*/listen_addresses = '*'/" /etc/postgresql/*/main/postgresql.conf`,
		},
		config: config("/bin/bash"),
	}.make},
	"torch": {version: "1", from: "base", make: dockerfile{
		steps:  []string{install("python3-torch", "python3-scipy", "python3-pandas"), clean},
		config: config("python3"),
	}.make},

	// One that is updated on top of what stays, as most are.
	"gcc": {version: "1", from: "base", make: dockerfile{
		steps:  []string{install("gcc", "libc6-dev", "make", "git", "ca-certificates") + " && " + clean},
		config: config("/bin/bash"),
	}.make},
	"golang":          {version: "2", from: "gcc", make: toolchain("1.26.0").make},
	"golang-previous": {version: "2", from: "gcc", make: toolchain("1.25.3").make},

	// One layer of real files, of so many MB compressed.
	"slice-3":  {version: "1", from: "debian", make: slice(3).make},
	"slice-25": {version: "1", from: "debian", make: slice(25).make},
	"slice-30": {version: "1", from: "debian", make: slice(30).make},

	// Growth. The lowest layer of each holds programs to run.
	"busybox":    {version: "1", make: makeBusybox},
	"layers-10":  {version: "1", from: "busybox", make: spread{10_000, 10}.make},
	"layers-50":  {version: "1", from: "busybox", make: spread{10_000, 50}.make},
	"layers-100": {version: "1", from: "busybox", make: spread{10_000, 100}.make},
	"files-10k":  {version: "1", from: "busybox", make: crowd(10_000).make},
	"files-100k": {version: "1", from: "busybox", make: crowd(100_000).make},
	"files-1m":   {version: "1", from: "busybox", make: crowd(1_000_000).make},

	// For critest: a web server, busybox, users, and a setuid program that says as whom it runs.
	"web": {version: "3", from: "base", make: dockerfile{
		steps: []string{
			install("nginx-light", "busybox-static", "procps") + " && " + clean,
			// What critest expects of sh is what busybox's says; ls is to be the one in /bin.
			"mkdir /busybox && busybox --install -s /busybox && rm /busybox/ls && ln -sf /busybox/sh /bin/sh",
			"cp /usr/bin/id /usr/bin/id-setuid && chmod 4755 /usr/bin/id-setuid",
			"useradd -u 1000 -U default-user && groupadd -g 50000 -U default-user group-defined-in-image",
		},
		config: config("nginx", "-g", "daemon off;"),
	}.make},

	// For tests.
	"nasty": {version: "2", make: makeNasty},
	// A third of base and of debian, in which the same programs run.
	"small-base": {version: "1", from: "base", make: unused.make},
	"small":      {version: "1", from: "debian", make: unused.make},
	"files":      {version: "1", make: makeFiles},
}

// searchPath is the PATH of images that say no other.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// config is that of an image which runs a command.
func config(cmd ...string) ocispec.ImageConfig {
	return ocispec.ImageConfig{Cmd: cmd, Env: []string{"PATH=" + searchPath}}
}

// clean removes what installing leaves and nobody needs in an image.
const clean = "rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old"

// install installs Debian packages.
func install(packages ...string) string {
	return "apt-get update && apt-get install -y --no-install-recommends " + strings.Join(packages, " ") + " && apt-get clean"
}
