package housekeeping

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// goTest is a command in the text of a document.
	goTest = regexp.MustCompile("`(?:cd ([^ `]+) && )?go test ([^`]*)`")
	// argument is one of its arguments, perhaps in quotes.
	argument = regexp.MustCompile(`'([^']*)'|([^ ]+)`)
	runs     = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)[A-Za-z0-9_]*)\(`)
)

// A figure has a command that gives it. What it runs exists, and its own flags
// stand behind the package: before it, the go command would take the package for
// one of theirs, and test another.
func TestCommandsOfTheDocuments(t *testing.T) {
	n := 0
	for path := range files(t) {
		if filepath.Ext(path) != ".md" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range goTest.FindAllStringSubmatch(string(text), -1) {
			n++
			if wrong := wrongCommand(t, m[1], m[2]); wrong != "" {
				t.Errorf("%s: %s: %s", path, m[0], wrong)
			}
		}
	}
	if n < 30 {
		t.Errorf("there are %d commands: this test looks in the wrong place", n)
	}
}

// wrongCommand says what is wrong with the arguments of go test in a folder.
func wrongCommand(t *testing.T, dir, args string) string {
	var words, tests, benchmarks []string
	for _, m := range argument.FindAllStringSubmatch(args, -1) {
		words = append(words, m[1]+m[2])
	}
	for ; len(words) > 1 && strings.HasPrefix(words[0], "-"); words = words[1:] {
		switch words[0] {
		case "-v", "-race":
			continue
		case "-run":
			tests = append(tests, words[1])
		case "-bench":
			benchmarks = append(benchmarks, words[1])
		case "-benchtime", "-count":
		default:
			return words[0] + " stands before the package"
		}
		words = words[1:]
	}
	if len(words) == 0 || !strings.HasPrefix(words[0], ".") {
		return "it names no package"
	}
	if strings.HasSuffix(words[0], "...") {
		return ""
	}
	names := functions(t, filepath.Join(root, dir, words[0]))
	for kind, patterns := range map[string][]string{"Test": tests, "Benchmark": benchmarks} {
		for _, p := range patterns {
			first, _, _ := strings.Cut(p, "/")
			is := regexp.MustCompile(first)
			if p != "^$" && !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, kind) && is.MatchString(name) }) {
				return "no " + kind + " there is called " + p
			}
		}
	}
	return ""
}

// functions are the tests and benchmarks of a folder.
func functions(t *testing.T, dir string) (names []string) {
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no tests in %s", dir)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range runs.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}
