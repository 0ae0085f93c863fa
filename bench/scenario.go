package main

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/headgate/headgate/bench/contender"
	"github.com/headgate/headgate/emulator"
)

//go:embed scenarios.yaml
var builtIn []byte

// Scenario is one thing that a server does and that clients have to live with.
// A file of scenarios is a YAML list of them; the README says how to add one.
type Scenario struct {
	Name  string `yaml:"name"`  // for filters and files; unique
	Title string `yaml:"title"` // for tables; zero means Name
	About string `yaml:"about"` // a sentence

	// Processes draw on the limit and share nothing; Busy of them have calls
	// to make. Zero means 1, and all.
	Processes int `yaml:"processes"`
	Busy      int `yaml:"busy"`
	// Calls is how many each busy process makes, by so many Callers at once.
	// Zero callers means 200. Quick is the same for a quick run; zero leaves
	// the scenario out of it.
	Calls   int `yaml:"calls"`
	Quick   int `yaml:"quick"`
	Callers int `yaml:"callers"`
	// Deadline ends a run: what is not executed by then is lost. Zero means 10 s
	// and three times the ideal span.
	Deadline time.Duration `yaml:"deadline"`
	// Alone: no other run beside it, because it needs the machine.
	Alone bool `yaml:"alone"`

	// Told is what the documentation says of the first limit; nil if there
	// is none. Wrong is what the client that is told wrong believes; nil: it
	// does not play.
	Told  *contender.Limit `yaml:"told"`
	Wrong *contender.Limit `yaml:"wrong"`

	// The server, in the words of emulator.Config.
	Limits        []limit                 `yaml:"limits"`
	Script        []fault                 `yaml:"script"`
	Latency       time.Duration           `yaml:"latency"` // zero means 5 ms
	RetryAfter    emulator.RetryAfterMode `yaml:"retryAfter"`
	RetryAfterMin time.Duration           `yaml:"retryAfterMin"`
	RetryAfterMax time.Duration           `yaml:"retryAfterMax"`
	Message       emulator.MessageForm    `yaml:"message"`
}

// limit is what the contest uses of an emulator.Limit.
type limit struct {
	Name      string             `yaml:"name"`
	Per       emulator.Per       `yaml:"per"`
	Algorithm emulator.Algorithm `yaml:"algorithm"`
	Rate      float64            `yaml:"rate"`
	Burst     float64            `yaml:"burst"`
	Max       int                `yaml:"max"`
	Window    time.Duration      `yaml:"window"`
	Phase     time.Duration      `yaml:"phase"`
}

// fault is what the contest uses of an emulator.Fault: what ideal understands.
type fault struct {
	Kind      emulator.FaultKind `yaml:"kind"`
	From      time.Duration      `yaml:"from"`
	To        time.Duration      `yaml:"to"`
	Limit     string             `yaml:"limit"`
	PerSecond float64            `yaml:"perSecond"`
	Rate      float64            `yaml:"rate"`
	Burst     float64            `yaml:"burst"`
}

// config is the server of one run. Offsets in it count from when it is made, so
// that a client which hesitates is not waited for.
func (s *Scenario) config(seed uint64) emulator.Config {
	c := emulator.Config{
		Seed:          seed,
		AnyToken:      true,
		Latency:       s.Latency,
		RetryAfter:    s.RetryAfter,
		RetryAfterMin: s.RetryAfterMin,
		RetryAfterMax: s.RetryAfterMax,
		Message:       s.Message,
		ScriptFromNew: true,
		Expected:      s.Busy * s.Calls,
		EarlyPerToken: s.Processes > 1,
	}
	for _, l := range s.Limits {
		c.Limits = append(c.Limits, emulator.Limit{Name: l.Name, Per: l.Per, Algorithm: l.Algorithm, Rate: l.Rate, Burst: l.Burst, Max: l.Max, Window: l.Window, Phase: l.Phase})
	}
	for _, f := range s.Script {
		c.Script = append(c.Script, emulator.Fault{Kind: f.Kind, From: f.From, To: f.To, Limit: f.Limit, PerSecond: f.PerSecond, Rate: f.Rate, Burst: f.Burst})
	}
	return c
}

// quick returns the scenario with fewer calls, or false if it has no part in a
// quick run.
func (s Scenario) quick() (Scenario, bool) {
	s.Calls = s.Quick
	s.Deadline = min(s.Deadline, 45*time.Second)
	return s, s.Quick > 0
}

const (
	maxFile  = 1 << 20
	maxCalls = 1_000_000 // of all processes together
	maxParts = 100       // of a scenario's limits, or of its script
)

// fileError is a mistake in a file of scenarios.
type fileError struct {
	file string
	line int
	text string
}

func (e *fileError) Error() string { return fmt.Sprintf("%s:%d: %s", e.file, e.line, e.text) }

// parseScenarios reads a file of scenarios and checks it. Errors are a
// *fileError and name the line and the field.
func parseScenarios(name string, text []byte) ([]Scenario, error) {
	fail := func(line int, format string, args ...any) error {
		return &fileError{name, max(1, line), fmt.Sprintf(format, args...)}
	}
	if len(text) > maxFile {
		return nil, fail(1, "a file of scenarios has at most %d bytes", maxFile)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		line, message := place(err)
		return nil, fail(line, "%s", message)
	}
	if len(file.Docs) > 1 {
		return nil, fail(file.Docs[1].GetToken().Position.Line, "a file of scenarios is one document")
	}
	var plain plainChecker
	for _, doc := range file.Docs {
		if doc.Body != nil {
			ast.Walk(&plain, doc.Body)
		}
	}
	if plain.bad != "" {
		return nil, fail(plain.line, "%s", plain.bad)
	}
	var scenarios []Scenario
	if err := yaml.UnmarshalWithOptions(text, &scenarios, yaml.Strict()); err != nil {
		line, message := place(err)
		return nil, fail(line, "%s", message)
	}
	if len(scenarios) == 0 {
		return nil, fail(1, "there is no scenario: it takes a list, each item with a name")
	}
	seen := map[string]bool{}
	for i := range scenarios {
		s := &scenarios[i]
		s.fill()
		field, err := s.check()
		if err == nil && seen[s.Name] {
			field, err = "name", fmt.Errorf("there are two scenarios %q", s.Name)
		}
		seen[s.Name] = true
		if err != nil {
			return nil, fail(lineOf(file, i, field), "%s: %v", cmp.Or(field, "scenario"), err)
		}
	}
	return scenarios, nil
}

// place is where an error of the parser is, and what it says, in one line.
func place(err error) (line int, message string) {
	line, message = 1, err.Error()
	var located interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if errors.As(err, &located) {
		message = located.GetMessage()
		if t := located.GetToken(); t != nil {
			line = t.Position.Line
		}
	}
	return line, strings.ReplaceAll(message, "\n", " ")
}

// plainChecker finds the first thing in a file that the decoder would take amiss.
type plainChecker struct {
	line int
	bad  string
}

var timeFields = []string{"deadline", "latency", "retryAfterMin", "retryAfterMax", "window", "from", "to"}

// Visit looks at a node.
func (c *plainChecker) Visit(node ast.Node) ast.Visitor {
	if c.bad != "" {
		return nil
	}
	switch n := node.(type) {
	case *ast.MappingNode, *ast.SequenceNode, *ast.CommentGroupNode, *ast.CommentNode,
		*ast.StringNode, *ast.LiteralNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode, *ast.NullNode:
	case *ast.MappingValueNode:
		// The decoder takes 5 for 5 ns, and what it says of "soon" has no place.
		if key := n.Key.GetToken().Value; slices.Contains(timeFields, key) {
			if _, err := time.ParseDuration(n.Value.GetToken().Value); err != nil {
				c.line, c.bad = n.Value.GetToken().Position.Line, key+": takes a time such as 300ms, 5s or 2m"
				return nil
			}
		}
	default:
		// Tags, anchors, aliases: nobody needs them here, and the decoder
		// panics at some.
		c.line, c.bad = node.GetToken().Position.Line, fmt.Sprintf("takes lists, mappings and plain values, no %s", strings.ToLower(node.Type().String()))
		return nil
	}
	return c
}

// fill puts the defaults in place of zeros.
func (s *Scenario) fill() {
	s.Title = cmp.Or(s.Title, s.Name)
	s.Processes = cmp.Or(s.Processes, 1)
	s.Busy = cmp.Or(s.Busy, s.Processes)
	s.Callers = cmp.Or(s.Callers, 200)
	s.Latency = cmp.Or(s.Latency, 5*time.Millisecond)
	for i := range s.Limits {
		l := &s.Limits[i]
		l.Per = cmp.Or(l.Per, emulator.PerToken)
		l.Name = cmp.Or(l.Name, string(l.Per)+".rate.per.minute")
		l.Algorithm = cmp.Or(l.Algorithm, emulator.Bucket)
	}
	for i := range s.Script {
		if f := &s.Script[i]; len(s.Limits) > 0 && f.Kind != emulator.Outage {
			f.Limit = cmp.Or(f.Limit, s.Limits[0].Name)
		}
	}
}

var word = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// check says which field is wrong, in the form limits[0].rate, and why.
func (s *Scenario) check() (field string, err error) {
	for _, n := range []struct {
		field     string
		value     int
		low, high int
	}{
		{"processes", s.Processes, 1, 100},
		{"busy", s.Busy, 1, s.Processes},
		{"calls", s.Calls, 1, maxCalls},
		{"quick", s.Quick, 0, maxCalls},
		{"callers", s.Callers, 1, 10_000},
	} {
		if n.value < n.low || n.value > n.high {
			return n.field, fmt.Errorf("is %d, must be from %d to %d", n.value, n.low, n.high)
		}
	}
	switch {
	case !word.MatchString(s.Name):
		return "name", fmt.Errorf("is %q, must be a word of a–z, 0–9 and -", s.Name)
	case len(s.Limits) == 0:
		return "limits", errors.New("a contest is about a limit: give at least one")
	case len(s.Limits) > maxParts:
		return "limits", fmt.Errorf("are %d, must be at most %d", len(s.Limits), maxParts)
	case len(s.Script) > maxParts:
		return "script", fmt.Errorf("has %d parts, must have at most %d", len(s.Script), maxParts)
	case s.Busy*s.Calls > maxCalls:
		return "calls", fmt.Errorf("are %d for all processes, must be at most %d", s.Busy*s.Calls, maxCalls)
	case s.Quick > s.Calls:
		return "quick", fmt.Errorf("is %d, must be at most calls, which is %d", s.Quick, s.Calls)
	case s.Deadline < 0 || s.Deadline > time.Hour:
		return "deadline", fmt.Errorf("is %v, must be from 0s to 1h", s.Deadline)
	}
	for i, l := range s.Limits {
		if s.Processes > 1 && l.Per == emulator.PerToken {
			return fmt.Sprintf("limits[%d].per", i), errors.New("is token, but each process has its own: several share a limit only per org or path")
		}
	}
	for _, told := range []struct {
		field string
		*contender.Limit
	}{{"told", s.Told}, {"wrong", s.Wrong}} {
		if told.Limit == nil {
			continue
		}
		bucket := told.Rate > 0 && told.Burst >= 1 && !math.IsInf(told.Rate+told.Burst, 0) && told.Max == 0 && told.Window == 0
		window := told.Max > 0 && told.Window > 0 && told.Rate == 0 && told.Burst == 0
		if !bucket && !window {
			return told.field, errors.New("takes rate and burst (at least 1), or max and window")
		}
	}
	for i, f := range s.Script {
		at := fmt.Sprintf("script[%d]", i)
		switch f.Kind {
		case emulator.Outage:
			if f.To == 0 {
				return at + ".to", errors.New("an outage ends")
			}
		case emulator.Traffic, emulator.Change:
			for _, l := range s.Limits {
				if l.Name == f.Limit && l.Algorithm != emulator.Bucket {
					return at + ".kind", fmt.Errorf("is %s, which the contest knows for buckets only", f.Kind)
				}
			}
		default:
			return at + ".kind", fmt.Errorf("is %q, must be outage, traffic or change", f.Kind)
		}
	}
	if _, err := emulator.New(s.config(0)); err != nil {
		return fieldOf(err)
	}
	ideal, ok := s.ideal(s.Busy * s.Calls)
	if !ok {
		return "calls", fmt.Errorf("the limits do not allow them within %v", longest)
	}
	s.Deadline = cmp.Or(s.Deadline, 10*time.Second+3*ideal)
	return "", nil
}

var configField = regexp.MustCompile(`^emulator: Config\.(\w+(?:\[\d+\])?(?:\.\w+)?)`)

// fieldOf turns an error of the emulator, which names the field in its own
// words, into ours: Config.Limits[0].Rate is limits[0].rate.
func fieldOf(err error) (string, error) {
	m := configField.FindStringSubmatchIndex(err.Error())
	if m == nil {
		return "", err
	}
	parts := strings.Split(err.Error()[m[2]:m[3]], ".")
	for i, p := range parts {
		parts[i] = string(unicode.ToLower(rune(p[0]))) + p[1:]
	}
	return strings.Join(parts, "."), errors.New(strings.TrimSpace(err.Error()[m[3]:]))
}

// lineOf is where a field of the i-th scenario stands: itself, or what it would
// stand in.
func lineOf(file *ast.File, i int, field string) int {
	for {
		at := fmt.Sprintf("$[%d]", i)
		if field != "" {
			at += "." + field
		}
		if path, err := yaml.PathString(at); err == nil {
			if node, err := path.FilterFile(file); err == nil && node != nil {
				return node.GetToken().Position.Line
			}
		}
		if field == "" {
			return 1
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
}
