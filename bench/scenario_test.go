package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

func builtInScenarios(t testing.TB) map[string]*Scenario {
	t.Helper()
	all, err := parseScenarios("scenarios.yaml", builtIn)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*Scenario{}
	for i := range all {
		byName[all[i].Name] = &all[i]
	}
	return byName
}

// Every field of a file gets to where it acts.
func TestParseWhole(t *testing.T) {
	const text = `
- name: all-of-it
  title: All of it
  about: Everything is set.
  processes: 3
  busy: 2
  calls: 40
  quick: 20
  callers: 7
  deadline: 50s
  alone: true
  told: {rate: 5, burst: 6}
  wrong: {max: 8, window: 9s}
  latency: 20ms
  retryAfter: fluctuating
  retryAfterMin: 2s
  retryAfterMax: 3s
  message: none
  limits:
    - {name: b, per: org, algorithm: bucket, rate: 10, burst: 11}
    - {per: path, algorithm: fixed, max: 12, window: 13s, phase: 14ms}
  script:
    - {kind: traffic, from: 1s, to: 2s, perSecond: 3}
    - {kind: change, from: 4s, limit: b, rate: 5, burst: 6}
    - {kind: outage, from: 7s, to: 8s}
`
	all, err := parseScenarios("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := all[0]
	got := fmt.Sprintf("%+v told %+v wrong %+v", s.config(9), *s.Told, *s.Wrong)
	for _, want := range []string{
		"Seed:9", "AnyToken:true", "Latency:20ms", "RetryAfter:fluctuating RetryAfterMin:2s RetryAfterMax:3s Message:none",
		"{Name:b Namespace: Per:org Match: Algorithm:bucket Rate:10 Burst:11 Max:0 Window:0s Phase:0s Value:0}",
		"{Name:path.rate.per.minute Namespace: Per:path Match: Algorithm:fixed Rate:0 Burst:0 Max:12 Window:13s Phase:14ms Value:0}",
		"Kind:traffic From:1s To:2s", "Limit:b PerSecond:3", "Kind:change From:4s", "Rate:5 Burst:6", "Kind:outage From:7s To:8s",
		"ScriptFromNew:true", "Expected:80", "EarlyPerToken:true",
		"told {Rate:5 Burst:6 Max:0 Window:0s}", "wrong {Rate:0 Burst:0 Max:8 Window:9s}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if s.Title != "All of it" || s.About != "Everything is set." || s.Processes != 3 || s.Busy != 2 || s.Callers != 7 || s.Deadline != 50*time.Second || !s.Alone {
		t.Errorf("got %+v", s)
	}
	if q, ok := s.quick(); !ok || q.Calls != 20 || q.Deadline != 45*time.Second {
		t.Errorf("quick is %v, %+v", ok, q)
	}
}

func TestParseDefaults(t *testing.T) {
	all, err := parseScenarios("x.yaml", []byte("- {name: a, calls: 10, told: {rate: 1, burst: 1}, limits: [{rate: 1, burst: 1}]}"))
	if err != nil {
		t.Fatal(err)
	}
	s := all[0]
	if s.Title != "a" || s.Processes != 1 || s.Busy != 1 || s.Callers != 200 || s.Latency != 5*time.Millisecond {
		t.Errorf("got %+v", s)
	}
	if want := 10*time.Second + 3*9*time.Second; s.Deadline != want {
		t.Errorf("deadline %v, want %v", s.Deadline, want)
	}
	if s.Limits[0].Name != "token.rate.per.minute" || s.Limits[0].Per != emulator.PerToken {
		t.Errorf("limit %+v", s.Limits[0])
	}
	if s.config(0).EarlyPerToken {
		t.Error("one process, and early is counted for each token")
	}
	if _, ok := s.quick(); ok {
		t.Error("it has a part in a quick run, without a number of calls for it")
	}
}

func TestParseMalformed(t *testing.T) {
	const good = "- name: a\n  calls: 10\n  limits: [{rate: 1, burst: 1}]\n"
	if _, err := parseScenarios("x.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text string
		line       int
		want       string
	}{
		{"nothing", "", 1, "no scenario"},
		{"only a comment", "# nothing\n", 1, "no scenario"},
		{"no list", "name: a\n", 1, ""},
		{"a tag", "! x\n", 1, "no tag"},
		{"an anchor", "- &a\n  name: a\n", 1, "no anchor"},
		{"an alias", good + "- *a\n", 4, "no alias"},
		{"two documents", good + "---\n" + good, 5, "one document"},
		{"no YAML", "- name: a\n  calls: [1\n", 2, ""},
		{"a tab", "- name: a\n\tcalls: 1\n", 2, ""},
		{"unknown field", good + "  colour: red\n", 4, "colour"},
		{"unknown field, deeper", "- name: a\n  calls: 10\n  limits:\n    - rate: 1\n      brust: 1\n", 5, "brust"},
		{"a word for a number", strings.Replace(good, "10", "many", 1), 2, "Calls"},
		{"no time", good + "  deadline: soon\n", 4, "deadline"},
		{"a time without a unit", good + "  script:\n    - {kind: outage, from: 1s,\n       to: 5}\n", 6, "to: takes a time"},
		{"a list for a time", good + "  latency: [1s]\n", 4, "latency"},
		{"the same field twice", good + "  calls: 11\n", 4, "calls"},
		{"no name", "- calls: 10\n  limits: [{rate: 1, burst: 1}]\n", 1, "name"},
		{"a name that is no word", strings.Replace(good, "name: a", "name: ../a", 1), 1, "name"},
		{"two of a name", good + "\n" + good, 5, "two scenarios"},
		{"no calls", "- name: a\n  limits: [{rate: 1, burst: 1}]\n", 1, "calls"},
		{"negative calls", strings.Replace(good, "10", "-10", 1), 2, "calls: is -10"},
		{"too many calls", strings.Replace(good, "10", "2000000", 1), 2, "calls"},
		{"too many calls together", "- name: a\n  processes: 100\n  calls: 100000\n  limits: [{per: org, rate: 100000, burst: 1}]\n", 3, "calls"},
		{"more quick calls than calls", good + "  quick: 11\n", 4, "quick"},
		{"more busy than there are", good + "  busy: 2\n", 4, "busy"},
		{"no limits", "- name: a\n  calls: 10\n", 1, "limits"},
		{"no rate", "- name: a\n  calls: 10\n  limits:\n    - {rate: 1, burst: 1}\n    - {name: b}\n", 5, "limits[1].rate"},
		{"a rate and a window", "- name: a\n  calls: 10\n  limits:\n    - algorithm: fixed\n      max: 1\n      rate: 1\n", 6, "limits[0].rate"},
		{"unknown algorithm", "- name: a\n  calls: 10\n  limits:\n    - max: 1\n      algorithm: leaky\n", 5, "limits[0].algorithm"},
		{"not a number", "- name: a\n  calls: 10\n  limits:\n    - rate: .nan\n", 4, "limits[0].rate"},
		{"a limit per token for several", good + "  processes: 2\n", 3, "limits[0].per"},
		{"told neither", good + "  told: {rate: 1}\n", 4, "told"},
		{"told both", good + "  told:\n    {rate: 1, burst: 1, max: 1, window: 1s}\n", 5, "told"},
		{"unknown Retry-After", good + "  retryAfter: maybe\n", 4, "retryAfter"},
		{"unknown message", good + "  message: rude\n", 4, "message"},
		{"negative latency", good + "  latency: -1s\n", 4, "latency"},
		{"deadline too late", good + "  deadline: 2h\n", 4, "deadline"},
		{"unknown fault", good + "  script:\n    - kind: earthquake\n", 5, "script[0].kind"},
		{"a fault that ideal does not know", good + "  script:\n    - kind: internal-error\n", 5, "script[0].kind"},
		{"an outage without end", good + "  script:\n    - kind: outage\n      from: 1s\n", 5, "script[0].to"},
		{"an outage that ends before", good + "  script:\n    - kind: outage\n      from: 2s\n      to: 1s\n", 6, "script[0].from"},
		{"traffic on no limit", good + "  script:\n    - {kind: traffic, perSecond: 1}\n    - kind: traffic\n      perSecond: 1\n      limit: b\n", 8, "script[1].limit"},
		{"traffic on a window", "- name: a\n  calls: 10\n  limits: [{algorithm: fixed, max: 1, window: 1s}]\n  script:\n    - kind: traffic\n      perSecond: 1\n", 5, "script[0].kind"},
		{"what can never be done", "- name: a\n  calls: 1000\n  limits: [{rate: 0.1, burst: 1}]\n", 2, "calls"},
		{"others take everything", good + "  script: [{kind: traffic, perSecond: 1}]\n", 2, "calls"},
		{"too large", "# " + strings.Repeat("x", maxFile) + "\n", 1, "bytes"},
		{"too many limits", "- name: a\n  calls: 10\n  limits:\n" + strings.Repeat("    - {rate: 1}\n", maxParts+1), 4, "limits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseScenarios("x.yaml", []byte(tt.text))
			var located *fileError
			if !errors.As(err, &located) {
				t.Fatalf("got %v, want an error with a line", err)
			}
			if located.line != tt.line || !strings.Contains(located.text, tt.want) || !strings.HasPrefix(err.Error(), fmt.Sprintf("x.yaml:%d: ", tt.line)) {
				t.Errorf("got %q, want line %d and %q", err, tt.line, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(builtIn)
	f.Add([]byte("- name: a\n  calls: 10\n  limits: [{rate: 1, burst: 1}]\n"))
	f.Add([]byte("- &a {name: a, calls: 1, limits: [{max: 9, window: 1s, algorithm: sliding}]}\n- *a\n"))
	f.Add([]byte("- {name: a, calls: 5, limits: [{rate: 1e300, burst: 1}], script: [{kind: change, rate: 1e-300}]}"))
	f.Add([]byte("[[[["))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseScenarios("x.yaml", text)
		if err != nil {
			var located *fileError
			if !errors.As(err, &located) || located.line < 1 || located.text == "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error that names no place: %q", err)
			}
			return
		}
		for i := range all {
			s := &all[i]
			if _, err := emulator.New(s.config(1)); err != nil {
				t.Errorf("accepted, and there is no such server: %v", err)
			}
			if ideal, ok := s.ideal(s.Busy * s.Calls); !ok || ideal < 0 || ideal > longest || s.Deadline <= 0 {
				t.Errorf("accepted with ideal %v, %v, deadline %v", ideal, ok, s.Deadline)
			}
		}
	})
}
