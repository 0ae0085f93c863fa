package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// The documents and the flags say the same.
func TestDocsAreInStepWithFlags(t *testing.T) {
	p := &process{}
	run, emulate, simulate := p.runCommand(), p.emulateCommand(), p.simulateCommand()
	check, newKey, gateway := p.checkCommand(), p.newKeyCommand(), p.gatewayCommand()
	known := map[string]bool{"help": true, "version": true}
	for _, c := range []struct {
		flags *pflag.FlagSet
		doc   string
	}{
		{run.Flags(), "../../docs/run.md"}, {emulate.Flags(), "../../docs/emulator.md"}, {simulate.Flags(), "../../docs/simulate.md"},
		{check.Flags(), "../../docs/gateway-config.md"}, {newKey.Flags(), "../../docs/gateway-config.md"},
		{gateway.Flags(), "../../docs/gateway.md"},
	} {
		text, err := os.ReadFile(c.doc)
		if err != nil {
			t.Fatal(err)
		}
		c.flags.VisitAll(func(f *pflag.Flag) {
			known[f.Name] = true
			if !strings.Contains(string(text), "`--"+f.Name+"`") {
				t.Errorf("%s does not say what --%s does", c.doc, f.Name)
			}
			if f.Usage == "" {
				t.Errorf("--%s has no help", f.Name)
			}
		})
	}
	mention := regexp.MustCompile("`(?:[^`\n]* )?--([a-z][a-z-]+)")
	for _, doc := range []string{"../../README.md", "../../docs/run.md", "../../docs/emulator.md", "../../docs/simulate.md", "../../docs/gateway-config.md", "../../docs/gateway.md", "../../docs/http-api.md", "../../docs/design.md", "../../docs/states.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mention.FindAllSubmatch(text, -1) {
			if !known[string(m[1])] {
				t.Errorf("%s speaks of --%s, which does not exist", doc, m[1])
			}
		}
	}
}
