package convert

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestConfigForm rewrites configs as spec/image.md, "The config", has it: byte by byte, since
// a config is compared with what that of the original becomes.
func TestConfigForm(t *testing.T) {
	sum := digest.FromString("a layer root")
	old := `"rootfs":{"diff_ids":["` + digest.FromString("a tar").String() + `"],"type":"layers","later":1}`
	made := `"rootfs":{"type":"layers","diff_ids":["` + sum.String() + `"]}`
	for name, tc := range map[string]struct{ config, want string }{
		"names are sorted":        {`{"os":"linux",` + old + `,"architecture":"amd64"}`, `{"architecture":"amd64","os":"linux",` + made + `}`},
		"names are bytes":         {`{"é":1,"a":2,"Z":3,"B":4,` + old + `}`, `{"B":4,"Z":3,"a":2,` + made + `,"é":1}`},
		"only the top is sorted":  {`{` + old + `,"x":{"b":[2,1],"a":{}}}`, `{` + made + `,"x":{"b":[2,1],"a":{}}}`},
		"white space goes":        {"{ \"x\" : [ 1 ,\n\t{ \"b\" : \" \" } ] ,\r\n" + old + " }\n", `{` + made + `,"x":[1,{"b":" "}]}`},
		"numbers keep digits":     {`{` + old + `,"x":[1.50e+2,123456789012345678901234567890,-0,0.10]}`, `{` + made + `,"x":[1.50e+2,123456789012345678901234567890,-0,0.10]}`},
		"strings keep escapes":    {`{` + old + `,"x":"\u0041\/<&>é"}`, `{` + made + `,"x":"\u0041\/<&>é"}`},
		"names are escaped":       {`{"\u0022\u005c\/\u0041\b\f\n\r\t\u0001\u007f\u2028<&>\ud800":1,` + old + `}`, `{"\"\\/A\b\f\n\r\t\u0001` + "\x7f" + `\u2028<&>` + "\ufffd" + `":1,` + made + `}`},
		"names that are one name": {`{"a":1,` + old + `,"\u0061":2}`, `{"a":2,` + made + `}`},
		"the last of two counts":  {`{"x":1,` + old + `,"x":2}`, `{` + made + `,"x":2}`},
		"below the top both stay": {`{` + old + `,"x":{"a":1,"a":2}}`, `{` + made + `,"x":{"a":1,"a":2}}`},
		"no rootfs":               {`{"os":"linux"}`, `{"os":"linux",` + made + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			im := new(image)
			if _, err := im.parseConfig([]byte(tc.config)); err != nil {
				t.Fatal(err)
			}
			got, err := rewriteConfig(im.config, []digest.Digest{sum})
			if err != nil || string(got) != tc.want {
				t.Errorf("got\n%s\nwant\n%s\n%v", got, tc.want, err)
			}
		})
	}
	if _, err := new(image).parseConfig([]byte(`{` + old + `,"RootFS":{}}`)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a name that differs from rootfs in case only: %v", err)
	}
}

// TestSpecLimits holds the limits of what travels to spec/image.md, "The original".
func TestSpecLimits(t *testing.T) {
	spec, err := os.ReadFile("../../spec/image.md")
	if err != nil {
		t.Fatal(err)
	}
	for what, limit := range map[string]int{"manifest": maxManifest, "config": maxConfig} {
		m := regexp.MustCompile(`(?m)^\| ` + what + ` \| ([0-9]+) MiB \|$`).FindSubmatch(spec)
		if m == nil {
			t.Errorf("image.md does not limit the %s", what)
			continue
		}
		if n, err := strconv.Atoi(string(m[1])); err != nil || n<<20 != limit {
			t.Errorf("a %s has at most %d bytes here, and %s MiB in image.md", what, limit, m[1])
		}
	}
}
