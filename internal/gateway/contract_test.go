package gateway

import (
	"go/ast"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

// docs/http-api.md names every kind of problem, every header field, and every
// parameter of the list.
func TestContractIsWhole(t *testing.T) {
	text, err := os.ReadFile("../../docs/http-api.md")
	must(t, err)
	names := func(what, word string) {
		t.Helper()
		if !strings.Contains(string(text), "`"+word) {
			t.Errorf("docs/http-api.md does not have the %s %s", what, word)
		}
	}
	for _, k := range kindsOfProblems() {
		names("problem", k.name+"`")
	}
	files := sourceFiles(t)
	fields := 0
	for _, f := range files {
		for name, o := range f.Scope.Objects {
			spec, ok := o.Decl.(*ast.ValueSpec)
			if !ok || o.Kind != ast.Con || !strings.HasPrefix(name, "field") && name != "signatureField" || name == "fieldPrefix" {
				continue
			}
			for i, n := range spec.Names {
				if n.Name == name {
					fields++
					names("field", literal(spec.Values[i]))
				}
			}
		}
	}
	if fields < 14 {
		t.Errorf("only %d fields", fields)
	}
	for _, p := range cases(t, files, "parseList") {
		names("parameter", p+"`")
	}
	for _, field := range keptFields {
		names("field", field+"`")
	}
}

// The code of docs/http-api.md that checks a callback's signature takes ours, and
// no others.
func TestContractSignature(t *testing.T) {
	text, err := os.ReadFile("../../docs/http-api.md")
	must(t, err)
	now := time.Unix(1_764_000_000, 0)
	field := signature("a secret", now, []byte(`{"id":"acme.1"}`))
	for _, c := range []struct{ language, command, flag, rest string }{
		{"python", "python3", "-c", `
f, b, n = "` + field + `", b'{"id":"acme.1"}', 1764000010
assert ours(b"a secret", f, b, n)
assert not ours(b"another", f, b, n)
assert not ours(b"a secret", f, b + b" ", n)
assert not ours(b"a secret", f, b, n + 1000)
assert not ours(b"a secret", "", b, n)
`},
		{"javascript", "node", "-e", `
const assert = require('node:assert');
const f = '` + field + `', b = Buffer.from('{"id":"acme.1"}'), n = 1764000010;
assert(ours('a secret', f, b, n));
assert(!ours('another', f, b, n));
assert(!ours('a secret', f, Buffer.from('{}'), n));
assert(!ours('a secret', f, b, n + 1000));
assert(!ours('a secret', '', b, n));
`},
	} {
		t.Run(c.language, func(t *testing.T) {
			if _, err := exec.LookPath(c.command); err != nil {
				t.Skip(err)
			}
			_, code, _ := strings.Cut(string(text), "```"+c.language+"\n")
			code, _, _ = strings.Cut(code, "```")
			if out, err := exec.Command(c.command, c.flag, code+c.rest).CombinedOutput(); err != nil || code == "" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// A call that is held does not go after its deadline: it is refused once that is
// certain.
func TestDeadlineOfHeldCall(t *testing.T) {
	b := newBench(t, plan{emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 0.1, Burst: 1}}}})
	if a := b.do("POST", executePath, body(1), "Headgate-Deadline: 600"); a.status != 200 {
		t.Fatalf("the first: %d %s", a.status, a.body)
	}
	if p := b.do("POST", executePath, body(2), "Headgate-Deadline: 2").problem(t); p.Status != 429 || p.RetryAfter < 5 {
		t.Errorf("the second: %+v", p)
	}
}
