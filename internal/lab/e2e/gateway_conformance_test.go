package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// trustlessSpecs are what of the suite is about trustless gateways. Left out is
// trustless-ipns-gateway: the node knows no names. All other specs are about gateways that serve files as
// such, which this is not.
const trustlessSpecs = "trustless-block-gateway,trustless-car-gateway,trustless-car-gateway-optional"

// leastConformance is how many tests of the suite must have passed, as in version 0.13.2: fewer would mean that
// it has not run.
const leastConformance = 400

// skippedConformance says why the suite's tests do not run that do not.
var skippedConformance = map[string][]string{
	"serve files and listings as such, which nobody can check": {
		"TestUnixFSDirectoryListing", "TestGatewayUnixFSFileRanges", "TestGatewaySymlink", "TestPathing", "TestPathGatewayMiscellaneous", "TestTar",
		"TestGatewayCache", "TestCors", "TestRedirectsFileSupport", "TestGatewayBlock",
	},
	"convert between codecs": {"TestGatewayJsonCbor", "TestNativeDag", "TestPlainCodec", "TestCodecMismatchReturns406"},
	"resolve names of IPNS or DNSLink": {
		"TestGatewayIPNSRecord", "TestGatewayIPNSRecordWithSubpath", "TestGatewayIPNSPath", "TestGatewayCacheWithIPNS", "TestGatewayJSONCborAndIPNS", "TestRedirectCanonicalIPNS",
		"TestDNSLinkGatewayIPNS", "TestDNSLinkGatewayWithSubpath", "TestDNSLinkGatewayUnixFSDirectoryListing", "TestRedirectsFileSupportWithDNSLink",
		"TestRedirectsFileWithIfNoneMatchHeader/DNSLinkGateway", "TestRedirectsFileWithIfNoneMatchHeader/SubdomainIPNS",
	},
	"serve hosts of their own, or as a proxy": {
		"TestGatewaySubdomains", "TestGatewaySubdomainAndIPNS", "TestSubdomainGatewayDNSLinkInlining", "TestUnixFSDirectoryListingOnSubdomainGateway", "TestProxyGatewaySubdomains",
		"TestProxyTunnelGatewaySubdomains", "TestRedirectsFileWithIfNoneMatchHeader/SubdomainIPFS",
	},
}

// otherHash is why a fixture of the tests of hosts is not imported: one of its blocks has a hash that is
// not kept here.
const otherHash = "its hash is not sha2-256"

// TestGatewayConformance runs IPFS's own suite for gateways, whose program GATEWAY_CONFORMANCE names, on what our
// own "dag import" has made of its fixtures. The module proxy does not have the suite (403), nor has any package;
// what it asks of a trustless gateway is in TestGateway, too.
func TestGatewayConformance(t *testing.T) {
	program := os.Getenv("GATEWAY_CONFORMANCE")
	if program == "" {
		t.Skip("NOT TESTED: GATEWAY_CONFORMANCE names no program gateway-conformance (github.com/ipfs/gateway-conformance), which is in no package")
	}
	labtest.Tools(t, tools.Kubo...)
	labtest.Build(t)
	l := labtest.Open(t, "conform", 1000)
	m := labtest.Machine(t, l, "gateway")
	daemon, err := m.StartDaemon(t.Context(), lab.DaemonOptions{Gateway: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := lab.Output(m.Command(t.Context(), program, "extract-fixtures", "--directory", dir)); err != nil {
		t.Fatal(err)
	}
	cars, err := filepath.Glob(filepath.Join(dir, "*.car"))
	if err != nil || len(cars) < 10 {
		t.Fatalf("%d fixtures, %v", len(cars), err)
	}
	refused := 0
	for _, car := range cars {
		_, err := lab.Output(daemon.IPFS(t.Context(), "dag", "import", "--pin-roots=false", car))
		if err != nil && strings.Contains(err.Error(), otherHash) {
			refused++
		} else if err != nil {
			t.Errorf("fixture %s: %v", filepath.Base(car), err)
		}
	}
	if refused > 1 {
		t.Errorf("%d of %d fixtures have blocks with another hash than sha2-256", refused, len(cars))
	}
	report := filepath.Join(dir, "report.json")
	out, err := m.Command(t.Context(), program, "test", "--gateway-url", "http://"+daemon.Gateway,
		"--specs", trustlessSpecs, "--json-output", report, "--", "-count=1").CombinedOutput()
	if err != nil {
		t.Errorf("gateway-conformance: %v\n%s", err, out)
	}
	events, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	passed := countConformance(t, events)
	t.Logf("gateway-conformance: %d passed of %s", passed, trustlessSpecs)
	if passed < leastConformance {
		t.Errorf("only %d tests have run", passed)
	}
}

// countConformance counts the tests that passed and have no others in them. Those that were skipped must be
// known.
func countConformance(t *testing.T, events []byte) (passed int) {
	t.Helper()
	ended := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(events))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Test string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("report: %v", err)
		}
		switch e.Action {
		case "pass", "fail", "skip":
			ended[e.Test] = e.Action
		}
	}
	inner := map[string]bool{}
	for name := range ended {
		for i := strings.LastIndex(name, "/"); i >= 0; i = strings.LastIndex(name[:i], "/") {
			inner[name[:i]] = true
		}
	}
	why := map[string]string{}
	for reason, names := range skippedConformance {
		for _, name := range names {
			why[name] = reason
		}
	}
	skipped := map[string]int{}
	for name, action := range ended {
		switch {
		case name == "" || inner[name]:
		case action == "pass":
			passed++
		case action == "skip" && why[name] != "":
			skipped[why[name]]++
		default:
			t.Errorf("%s: %s", action, name)
		}
	}
	for reason, n := range skipped {
		t.Logf("skipped: %d tests of gateways that %s", n, reason)
	}
	return passed
}
