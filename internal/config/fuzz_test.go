package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Parse never panics, says where, and what it returns is whole.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../../examples/gateway.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("orgs: {acme: " + login + ", limits: learn, peak_hours: [{zone: UTC, when: daily 1-2, keep: 5%}]}}")
	f.Add("listen: 0.0.0.0:8080\nbounds: {held: 5, body: 1MiB}\norgs: {a: {region: eu-west-1, mode: pass-through, path: none}}")
	f.Add("keep: 5\nkeep: [\n- a: {b: &x *y, !!z <<: 'w'}")
	f.Add("orgs:\n  ? a\n  : |\n    text\n---\n")
	f.Add(" \r\r \"")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 {
			return
		}
		secret := "value-of-it"
		file, _, err := Parse("gw/f", []byte(text), Sources{
			Env:      func(string) string { return secret },
			ReadFile: func(string) ([]byte, error) { return []byte(secret), nil },
		})
		if err != nil {
			problems, ok := errors.AsType[Errors](err)
			if !ok || len(problems) == 0 || file != nil {
				t.Fatalf("%v, %v", file, err)
			}
			for _, p := range problems {
				if p.Line < 1 || p.Column < 1 || p.Message == "" || p.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+2 || strings.Contains(p.Message, secret) {
					t.Fatalf("%+v", p)
				}
			}
			return
		}
		if len(file.Listen) == 0 || len(file.Orgs) == 0 {
			t.Fatalf("%+v", file)
		}
		for _, o := range file.Orgs {
			if o.APIURL == "" || o.LoginURL == "" || o.MaxWait <= 0 || o.Timeout <= 0 || o.Concurrency < 1 || o.Guest("").Held < 1 ||
				!o.PassThrough && (o.Credentials.ClientID == "" || o.Credentials.ClientSecret.Reveal() == "") {
				t.Fatalf("%+v", o)
			}
			for _, l := range o.Limits {
				if err := l.Validate(); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range o.Callers {
				if c.Key.IsZero() || c.Held < 1 || c.Queued < 1 || c.QueuedBytes < 1 || c.Urgency < c.MostUrgent {
					t.Fatalf("%+v", c)
				}
			}
		}
	})
}
