package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// paths lists the paths of all keys of a grammar.
func paths(within string, table []key, into map[string]bool) {
	for _, k := range table {
		path := below(within, k.name)
		into[path] = true
		paths(path+k.plural, k.under, into)
	}
}

// The document has every key of the parser, and no other.
func TestDocumentHasEveryKey(t *testing.T) {
	want := map[string]bool{}
	paths("", new(File).keys(), want)
	text, err := os.ReadFile("../../docs/gateway-config.md")
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile("^###? (?:`(.*)`|(.*))$")
	row := regexp.MustCompile("^\\| `([a-z_]+)` \\|")
	got, within := map[string]bool{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			within = m[1]
		}
		if m := row.FindStringSubmatch(line); m != nil {
			path := below(within, m[1])
			if got[path] {
				t.Errorf("%s is there twice", path)
			}
			got[path] = true
		}
	}
	for path := range want {
		if !got[path] {
			t.Errorf("the document lacks %s", path)
		}
	}
	for path := range got {
		if !want[path] {
			t.Errorf("the document has %s, the file has not", path)
		}
	}
	if len(want) < 60 {
		t.Errorf("only %d keys", len(want))
	}
}
