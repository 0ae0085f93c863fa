package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"

	"github.com/headgate/headgate"
)

// span is a duration that may be written as a number of seconds.
type span time.Duration

// String writes the duration, for the help.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	text := time.Duration(*s).String()
	text = strings.TrimSuffix(text, "0s")
	return strings.TrimSuffix(text, "0m")
}

// Set reads "5", "1.5" (seconds), "300ms", "2m".
func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, nerr := strconv.ParseFloat(text, 64); nerr == nil {
		d, err = time.Duration(n*float64(time.Second)), nil
		if !(n >= 0 && n < 1e9) {
			return errors.New("takes a time such as 5 (seconds), 300ms or 2m")
		}
	}
	if err != nil || d < 0 {
		return errors.New("takes a time such as 5 (seconds), 300ms or 2m")
	}
	*s = span(d)
	return nil
}

// Type is what the help calls it.
func (s *span) Type() string { return "TIME" }

// rate is the value of --limit: so many per unit.
type rate struct {
	n    float64
	per  time.Duration
	text string
	// learns: the word learn is taken too.
	learns bool
}

// wordLearn is the value of --limit that tells nothing.
const wordLearn = "learn"

// String writes it as it was given.
func (r *rate) String() string { return r.text }

// Set reads "50/s".
func (r *rate) Set(text string) (err error) {
	if r.learns && text == wordLearn {
		r.n, r.per, r.text = 0, 0, text
		return nil
	}
	r.n, r.per, err = headgate.ParseRate(text)
	r.text = text
	return err
}

// Type is what the help calls it.
func (r *rate) Type() string {
	if r.learns {
		return "RATE[/s|/min|/h]|learn"
	}
	return "RATE[/s|/min|/h]"
}

// perSecond returns the rate in requests a second. It is 0 if none is given.
func (r *rate) perSecond() float64 {
	if r.per == 0 {
		return 0
	}
	return r.n / r.per.Seconds()
}

// readConfig sets the flags that a file names and the command line does not:
// its words are those of the flags, with _ for -.
func readConfig(path string, flags *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		values, ok := doc.Body.(ast.MapNode)
		if !ok {
			return fmt.Errorf("%s:%d: takes lines such as retry_after: 5", path, doc.Body.GetToken().Position.Line)
		}
		for it := values.MapRange(); it.Next(); {
			if at, err := setFlag(flags, it.Key(), it.Value()); err != nil {
				return fmt.Errorf("%s:%d: %w", path, at.GetToken().Position.Line, err)
			}
		}
	}
	return nil
}

// setFlag sets the flag that key names. With an error it returns what in the file
// it is about.
func setFlag(flags *pflag.FlagSet, key, value ast.Node) (at ast.Node, err error) {
	word := key.GetToken().Value
	f := flags.Lookup(strings.ReplaceAll(word, "_", "-"))
	if f == nil || strings.Contains(word, "-") || f.Name == "config" || f.Name == "help" {
		return key, fmt.Errorf("unknown word %q; the words are those of the flags, with _ for -", word)
	}
	values := []ast.Node{value}
	if list, ok := value.(*ast.SequenceNode); ok {
		if _, ok := f.Value.(repeatable); !ok {
			return key, fmt.Errorf("%s takes one value", word)
		}
		values = list.Values
	}
	given := f.Changed
	for _, v := range values {
		if _, ok := v.(ast.ScalarNode); !ok {
			return key, fmt.Errorf("%s takes one value", word)
		}
		if given { // the command line goes first
			continue
		}
		if err := flags.Set(f.Name, v.GetToken().Value); err != nil {
			return v, err
		}
	}
	return nil, nil
}

// repeatable is a flag that may be given several times, and in a file have a
// list of values.
type repeatable interface{ repeatable() }
