package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPackagedConfigurationSaysTheDefaults takes the settings of the packaged file that are commented
// out for what they say: each must be one, and its default.
func TestPackagedConfigurationSaysTheDefaults(t *testing.T) {
	commented := regexp.MustCompile(`(?m)^#([a-z_]+ = )`)
	text := readDoc(t, "packaging/config.toml")
	cfg, err := parse(t, "--config", writeConfig(t, commented.ReplaceAllString(text, "$1")))
	if err != nil {
		t.Fatal(err)
	}
	def := defaultConfig()
	for _, list := range []*[]string{&cfg.Node.Listen, &cfg.Node.Peers, &cfg.Node.Allow, &cfg.Node.Routers, &cfg.Origin.Layouts} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	if !reflect.DeepEqual(cfg, def) {
		t.Errorf("it says %+v, the defaults are %+v", cfg, def)
	}
	for _, name := range settings(reflect.TypeOf(def), "") {
		section, key, found := strings.Cut(name, ".")
		if !found {
			section, key = "", name
		}
		if !regexp.MustCompile(`(?ms)^\[` + section + `\]$.*^#` + key + ` = `).MatchString("[]\n" + text) {
			t.Errorf("it does not have %s", name)
		}
		if name != "mounts.image" && name != "mounts.data" && !strings.Contains(readDoc(t, "README.md"), "| `"+name+"` |") {
			t.Errorf("README.md does not have %s", name)
		}
	}
}

// settings are the names of all, but for the version.
func settings(of reflect.Type, prefix string) (names []string) {
	for i := range of.NumField() {
		name, ok := of.Field(i).Tag.Lookup("toml")
		switch {
		case !ok || name == "version":
		case of.Field(i).Type.Kind() == reflect.Struct:
			names = append(names, settings(of.Field(i).Type, prefix+name+".")...)
		default:
			names = append(names, prefix+name)
		}
	}
	return names
}

// TestReadmeHasTheFlags finds each flag in README.md, and there no command of this program that
// does not exist, or with a flag that it does not have.
func TestReadmeHasTheFlags(t *testing.T) {
	text := readDoc(t, "README.md")
	root := rootCommand()
	for _, cmd := range allCommands(root) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !cmd.Hidden && f.Name != "help" && !strings.Contains(text, "--"+f.Name) {
				t.Errorf("README.md does not have --%s of %s", f.Name, cmd.CommandPath())
			}
		})
	}
	commands := regexp.MustCompile("(?:`|\\n|exec )ipcs-snapshotter ([^`\\n]*)").FindAllStringSubmatch(text, -1)
	if len(commands) < 5 {
		t.Errorf("README.md has only %d commands of this program: they are not found any more", len(commands))
	}
	for _, c := range commands {
		ours, _, _ := strings.Cut(c[1], " -- ")
		words := strings.FieldsFunc(ours, func(r rune) bool { return strings.ContainsRune(" []|", r) })
		var names []string
		for _, w := range words {
			if regexp.MustCompile(`^[a-z]+$`).MatchString(w) {
				names = append(names, w)
			} else {
				break
			}
		}
		cmd, rest, err := root.Find(names)
		if err != nil || cmd == root && len(rest) > 0 {
			t.Errorf("README.md: %q: no such command", c[1])
			continue
		}
		for _, w := range words {
			name, ok := strings.CutPrefix(w, "--")
			if name, _, _ = strings.Cut(name, "="); ok && name != "help" && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
				t.Errorf("README.md: %q: no such flag: --%s", c[1], name)
			}
		}
	}
}

// TestHelp finds that each command that people use has examples.
func TestHelp(t *testing.T) {
	for _, cmd := range allCommands(rootCommand()) {
		if !cmd.Hidden && (cmd.Short == "" || !strings.Contains(cmd.Example, cmd.CommandPath())) {
			t.Errorf("%s --help has no example of it", cmd.CommandPath())
		}
	}
}

// allCommands are a command and all below it.
func allCommands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		all = append(all, allCommands(sub)...)
	}
	return all
}
