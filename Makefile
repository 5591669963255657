# ipcs: make help

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
CACHE   := .cache
TOOLS   := $(CACHE)/bin
GOARCH  ?= $(shell $(GO) env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

PROGRAMS := convert compare ipcs-snapshotter
# One set of flags for all that is built, so that every package is compiled once.
GOENV     = CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'
GOBUILD   = $(GOENV) $(GO) build -ldflags '-s -w -X main.version=$(VERSION)'
GORUN     = $(GOENV) $(GO) run
LAB       = $(TOOLS)/lab

# What "make demo" runs on; any registry reference or oci:DIR:TAG does.
IMAGE    ?=
CMD      ?=
export IMAGE CMD
# What "make compare" compares: references, as compare takes them.
IMAGES   ?=
FUZZTIME ?= 10s
# A checkout of pjdfstest, which "make nightly" then runs, too.
PJDFSTEST ?=
export PJDFSTEST
# make root RUN=Oracle runs some of the end-to-end tests.
RUN      ?=
# make bench ONLY=SCENARIO measures some scenarios or, as SCENARIO/CASE, cases ("bench list"
# names them); PPROF=1 writes profiles beside the results.
ONLY     ?=
PPROF    ?=
# The results that docs/benchmarks.md is about are of whole scenarios without profiling.
RESULTS   = $(if $(PPROF)$(findstring /,$(ONLY)),$(CACHE)/results,bench/results)
BENCH     = $(TOOLS)/bench
BENCHRUN  = $(BENCH) run $(if $(ONLY),--only '$(ONLY)') $(if $(PPROF),--pprof)

# As in GOENV: what lint, tests and programs are made of is compiled once for all.
export GOFLAGS += -trimpath -buildvcs=false
# lint vets: here it would be done again for each set of flags, dependencies included.
GOTEST   = $(GO) test -vet=off

.DEFAULT_GOAL := help
.PHONY: help build dist install tools image lab demo bench bench-quick tuning ipfs containerd convert compare test unit race norace root kernels suites nightly lint fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

BINARIES := $(addprefix bin/,$(PROGRAMS))

build: ## static binaries in bin/
	@$(GOBUILD) -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

dist: ## static binaries for linux/amd64 and linux/arm64 in dist/
	@for arch in amd64 arm64; do for p in $(PROGRAMS); do \
		echo dist/linux-$$arch/$$p; \
		GOOS=linux GOARCH=$$arch $(GOBUILD) -o dist/linux-$$arch/$$p ./cmd/$$p || exit 1; \
	done; done

install: build ## binaries, systemd unit and configuration (also containerd's) below DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/ipcs $(DESTDIR)/etc/ipcs $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/containerd/conf.d $(DESTDIR)/etc/containerd/certs.d/ipfs.localhost
	install -m 0755 $(BINARIES) packaging/ipcs-rootless $(DESTDIR)$(PREFIX)/bin
	test -e $(DESTDIR)/etc/ipcs/config.toml || install -m 0644 packaging/config.toml $(DESTDIR)/etc/ipcs/config.toml
	sed 's|@bindir@|$(PREFIX)/bin|' packaging/ipcs-snapshotter.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/ipcs-snapshotter.service
	test -e $(DESTDIR)/etc/containerd/conf.d/ipcs.toml || \
		sed 's|linux/amd64|linux/$(GOARCH)|' packaging/containerd-config.toml >$(DESTDIR)/etc/containerd/conf.d/ipcs.toml
	test -e $(DESTDIR)/etc/containerd/certs.d/ipfs.localhost/hosts.toml || \
		install -m 0644 packaging/hosts.toml $(DESTDIR)/etc/containerd/certs.d/ipfs.localhost/hosts.toml
	install -m 0644 packaging/mirror.toml $(DESTDIR)$(PREFIX)/share/ipcs/mirror.toml
	sed 's|linux/amd64|linux/$(GOARCH)|' packaging/containerd-content.toml >$(DESTDIR)$(PREFIX)/share/ipcs/containerd-content.toml
	sed 's|linux/amd64|linux/$(GOARCH)|' packaging/containerd-unpack.toml >$(DESTDIR)$(PREFIX)/share/ipcs/containerd-unpack.toml

tools: ## stock containerd, runc and a registry, pinned, in .cache/bin
	@$(GORUN) ./internal/lab/cmd/tools -dir $(TOOLS)

image: ## the demo's image: a real Debian with Python, in .cache/images
	@$(GORUN) ./internal/lab/cmd/image -dir $(CACHE)/images debian

lab:
	@$(GOBUILD) -o $(TOOLS)/ ./internal/lab/cmd/lab

# What the lab needs. Each build uses all cores, so they go one after the other and
# compile nothing twice; the image is made beside them.
.PHONY: ready programs
ready:
	@$(MAKE) --no-print-directory -j2 $(if $(IMAGE),,image) programs

programs:
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory lab
	@$(MAKE) --no-print-directory tools

demo: ready ## convert an image, run it lazily on another machine, and compare with overlayfs (IMAGE=, CMD=)
	@$(LAB) demo -image "$$IMAGE" -cmd "$$CMD"

# What was measured is a commit, which results and the document of them do not change.
.PHONY: measuring
measuring: VERSION = $(shell git describe --tags --always)$(shell git diff --quiet HEAD -- . ':!bench/results' ':!docs' || echo -dirty)
measuring:
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory tools
	@$(GOBUILD) -o $(TOOLS)/ ./internal/lab/cmd/bench

# The program that measures also compares and writes, in place of the shell: a signal to
# make reaches it, and is waited for.
bench: measuring ## measure everything against what people use now, and write docs/benchmarks.md (ONLY=, PPROF=1)
	@$(GORUN) ./internal/lab/cmd/tools -dir $(TOOLS) -get kubo
	@exec $(BENCHRUN) --out $(RESULTS) $(if $(filter bench/results,$(RESULTS)),--document docs)

bench-quick: measuring ## under ten minutes of it, compared with bench/results (ONLY=, PPROF=1)
	@rm -f $(CACHE)/results-quick/*.json
	@exec $(BENCHRUN) --quick --out $(CACHE)/results-quick --compare bench/results

containerd: ready ## a private containerd with ipcs, in the foreground ("make convert" beside it)
	@$(LAB) containerd

# What is measured needs the whole computer; ONLY= names tables ("requests|export").
tuning: build tools ## measure Kubo as a node, and write the tables of docs/tuning.md (ONLY=)
	@$(GORUN) ./internal/lab/cmd/tools -dir $(TOOLS) -get kubo
	@$(GOBUILD) -o $(TOOLS)/ ./internal/lab/cmd/tuning
	@exec $(TOOLS)/tuning $(if $(ONLY),-only '$(ONLY)') -write docs/tuning.md

ipfs: lab ## a Kubo that knows nobody, in the foreground ("make containerd" and "make convert" beside it use it)
	@$(GORUN) ./internal/lab/cmd/tools -dir $(TOOLS) -get kubo
	@exec $(LAB) ipfs

convert: ## convert the demo's image into the containerd of "make containerd"
	@$(LAB) convert -image "$$IMAGE"

compare: build ## what a Debian and its security update share; and as a page, .cache/compare.html (IMAGES= for others)
	@$(if $(IMAGES),,$(GORUN) ./internal/lab/cmd/image -dir $(CACHE)/images base base-updated)
	@bin/compare --html $(CACHE)/compare.html $(or $(IMAGES),oci:$(CACHE)/images/base oci:$(CACHE)/images/base-updated)
	@echo; echo "the same with charts: $(CACHE)/compare.html"

test: race norace root ## every test: under the race detector where that can be, the others, and as root end to end

# All packages but the lab, whose tests start machines and are for "root".
UNIT = $(shell $(GO) list ./... | grep -v /internal/lab)

.PHONY: packages
packages:
	@$(GORUN) ./internal/lab/cmd/tools -get packages

unit: packages ## all but what starts machines, without the race detector: for development
	CGO_ENABLED=0 $(GOTEST) $(UNIT)

# What counts memory, or how soon a peer is found to be dead, or goes through every bit or many
# entries takes minutes under the race detector, or is another thing, on code that other tests run under it: "norace" runs it.
NORACE = ^(TestUnderAttack|TestDeadPeerCostsOneTimeout|TestMergeDeep|TestMetadataBounded|TestLikeContainerdRandom|TestVerifyEveryBit.*|TestManyXattrs|TestManyInOneDirectory|TestHeadersAreNotHeld|TestWriteWhatIsRead|TestRootfsLikeBoxo|TestFrames)$$

race: packages
	CGO_ENABLED=1 $(GOTEST) -race -skip '$(NORACE)' $(UNIT) ./internal/lab/tree ./internal/lab/images

norace: packages
	CGO_ENABLED=0 $(GOTEST) -run '$(NORACE)' $$(git grep -lE 'func $(patsubst ^%$$,%,$(NORACE))\(' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')

# The package that takes longest comes first: the others are done beside it.
root: tools
	CGO_ENABLED=0 $(GOTEST) -count=1 -timeout 40m $(if $(RUN),-run '$(RUN)') ./internal/lab/e2e ./internal/lab/...
	$(if $(RUN),,CGO_ENABLED=1 $(GOTEST) -race -count=1 -run Delay ./internal/lab)

kernels: ## the snapshotter's tests on the kernels of other Debian releases, in QEMU (RUN=REGEXP: some)
	RUN='$(RUN)' .ci/kernels

suites: tools
	IPCS_NIGHTLY=1 IPCS_KILLS=200 CGO_ENABLED=0 $(GO) test -count=1 -timeout 3h -v -run 'Critest|Pjdfstest|Rootless|Served|ManyFiles|TestCrash$$' ./internal/lab/e2e ./cmd/ipcs-snapshotter

# One that fails does not keep the others from running.
nightly: ## what takes too long for "test": critest, pjdfstest (PJDFSTEST=DIR), 200 kills, other kernels, long fuzzing
	@$(MAKE) --no-print-directory -k FUZZTIME=$(if $(filter command line,$(origin FUZZTIME)),$(FUZZTIME),2m) suites kernels fuzz

lint: ## gofmt, go vet, staticcheck, and who may import what (.depguard.yml)
	@$(GORUN) ./internal/lab/cmd/tools -dir $(TOOLS) -get lint
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { gofmt -d $$unformatted; exit 1; }
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(TOOLS)/staticcheck ./...
	$(TOOLS)/depguard ./...
	@long=$$(git ls-files '*.go' | xargs wc -l | awk '$$1 > 400 && $$2 != "total"'); \
		test -z "$$long" || { echo "longer than 400 lines:"; echo "$$long"; exit 1; }

fuzz: ## each fuzz target for FUZZTIME
	@$(GO) list -f '{{.Dir}}' ./... | while read -r d; do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$d/*_test.go 2>/dev/null | cut -c6-); do \
			(cd $$d && $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x .) || exit 1; \
		done; done

clean: ## what was built; images and tools in .cache stay (rm -rf .cache takes them)
	rm -rf bin dist $(CACHE)/run
