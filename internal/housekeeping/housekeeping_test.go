// Package housekeeping holds tests of the project itself: who may import whom,
// and that no secret lies about.
package housekeeping

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/headgate/headgate"
	root   = "../.."
)

// mayImport says which of our packages each package may import, tests aside,
// and whether it may import others than the standard library. It is the table
// of docs/design.md.
var mayImport = map[string]struct {
	ours     []string
	standard bool // nothing but the standard library otherwise
}{
	"":                         {[]string{"internal/bucket", "internal/ratehdr"}, true},
	"genesys":                  {[]string{""}, true},
	"emulator":                 {nil, true},
	"headgatetest":             {[]string{"emulator"}, true},
	"internal/bucket":          {nil, true},
	"internal/ratehdr":         {nil, true},
	"internal/queue":           {nil, true},
	"internal/queue/queuetest": {[]string{"internal/queue"}, false},
	"internal/sqlite":          {[]string{"internal/queue"}, false},
	"internal/progress":        {nil, false},
	"internal/dashboard":       {nil, true},
	"internal/simulate":        {[]string{"", "internal/bucket"}, false},
	"internal/deliver":         {[]string{"", "genesys", "internal/queue"}, true},
	"internal/bulk":            {[]string{"", "genesys", "internal/deliver", "internal/queue", "internal/progress"}, true},
	"internal/telemetry":       {[]string{""}, false},
	"internal/keys":            {nil, true},
	"internal/schedule":        {nil, true},
	"internal/config":          {[]string{"", "genesys", "internal/keys", "internal/schedule"}, false},
	"internal/gateway":         {[]string{"", "genesys", "internal/config", "internal/dashboard", "internal/deliver", "internal/keys", "internal/queue", "internal/schedule", "internal/sqlite", "internal/telemetry"}, true},
	"internal/housekeeping":    {nil, true},
	"cmd/headgate":             {[]string{"", "genesys", "emulator", "internal/bulk", "internal/config", "internal/deliver", "internal/gateway", "internal/keys", "internal/progress", "internal/queue", "internal/schedule", "internal/simulate", "internal/sqlite", "internal/telemetry"}, false},
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for path := range goFiles(t) {
		dir := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), root))
		dir = strings.TrimPrefix(dir, "/")
		if own, _, _ := strings.Cut(dir, "/"); own == "bench" || own == "browser" || own == "examples" {
			continue // a module of its own, or a program for somebody else's
		}
		rule, ok := mayImport[dir]
		if !ok {
			t.Errorf("package %q is not in the table: say there, and in docs/design.md, what it may import", dir)
			continue
		}
		seen[dir] = true
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			first, _, _ := strings.Cut(name, "/")
			switch {
			case name == module || strings.HasPrefix(name, module+"/"):
				ours := strings.TrimPrefix(strings.TrimPrefix(name, module), "/")
				if !slices.Contains(rule.ours, ours) {
					t.Errorf("%s imports %s: its package may import of ours %q", path, name, rule.ours)
				}
			case strings.Contains(first, ".") && rule.standard:
				t.Errorf("%s imports %s: its package builds on the standard library alone", path, name)
			}
		}
	}
	for dir := range maps.Keys(mayImport) {
		if !seen[dir] {
			t.Errorf("there is no package %q", dir)
		}
	}
}

// goFiles yields the paths of all Go files.
func goFiles(t *testing.T) map[string]bool {
	paths := map[string]bool{}
	for path := range files(t) {
		if strings.HasSuffix(path, ".go") {
			paths[path] = true
		}
	}
	return paths
}

// files yields the paths of all files but git's own.
func files(t *testing.T) map[string]bool {
	paths := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".build"):
			return fs.SkipDir
		case d.Type().IsRegular():
			paths[path] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// What looks like a secret of the platform, of a cloud or of a person.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY`),
	regexp.MustCompile(`(?i)authorization:\s*(bearer|basic)\s+[A-Za-z0-9+/_=-]{20,}`),
	regexp.MustCompile(`\b(AKIA|ghp_|glpat-|xox[bp]-)[A-Za-z0-9]{12,}`),
	regexp.MustCompile(`(?i)client_?secret["']?\s*[:=]\s*["'][A-Za-z0-9+/=-]{30,}`),
}

func TestNoSecrets(t *testing.T) {
	for path := range files(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if found := secret.Find(text); found != nil {
				t.Errorf("%s holds what looks like a secret: %.20q…", path, found)
			}
		}
	}
}

// Every fuzz target has a seed beside f.Add or in testdata, so that a plain go
// test runs it on something.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\) \{\n((?:.*\n)*?)\}`)
	for path := range goFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			corpus, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "testdata", "fuzz", string(m[1])))
			if !strings.Contains(string(m[2]), "f.Add(") && len(corpus) == 0 {
				t.Errorf("%s: %s has no seed", path, m[1])
			}
		}
	}
}
