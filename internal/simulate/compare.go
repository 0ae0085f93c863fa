package simulate

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/bucket"
)

// Scenario is what several ways of going about the same calls are compared on.
type Scenario struct {
	Seed uint64
	// Arrivals returns the calls from the first on, each time the same.
	Arrivals func() Source
	// Calls is about how many there are, for progress.
	Calls float64
	// Start is when the run begins, in the zone in which times are shown.
	// A year of 1 says that there is no date: time is shown since then.
	Start time.Time
	// Horizon is until when calls may come.
	Horizon time.Duration

	Limits     []ScenarioLimit
	RetryAfter RetryAfter
	Outages    []Outage
	// Latency is how long an accepted request takes to be answered, and
	// Jitter how much more it may be.
	Latency, Jitter time.Duration

	// Credentials each have a bucket of their own of the limits that count
	// so. Clients is how many processes use each of them; they share
	// nothing. Callers is how many calls each has under way at once.
	Credentials, Clients, Callers int
}

// ScenarioLimit is a limit of the server and what clients are told of it.
type ScenarioLimit struct {
	Limit
	Name string
	// Shared: it counts all credentials together.
	Shared bool
	Told   Told
}

// Told is what clients know of a limit.
type Told struct {
	How Knowledge
	// Rule is what they believe, if that is Wrong.
	Rule bucket.Rule
}

// Knowledge is how much a client is told of a limit.
type Knowledge int

const (
	// Known is what it is.
	Known Knowledge = iota
	// Unknown is that there is one.
	Unknown
	// Hidden is not even that.
	Hidden
	// Wrong is a rule, right or wrong.
	Wrong
)

// TellsNothing reports whether clients know nothing of any limit.
func (s *Scenario) TellsNothing() bool {
	return !slices.ContainsFunc(s.Limits, func(l ScenarioLimit) bool { return l.Told.How == Known || l.Told.How == Wrong })
}

// rule returns what a client begins with.
func (l *ScenarioLimit) rule(learn, told bool) bucket.Rule {
	rule := bucket.Rule{Learn: learn}
	how := l.Told.How
	if !told && how != Hidden {
		how = Unknown
	}
	switch how {
	case Known:
		rule.Rate, rule.Burst, rule.Max, rule.Window = l.Rate, l.Burst, l.Max, l.Window
	case Wrong:
		rule = l.Told.Rule
		rule.Learn = learn
	case Hidden:
		rule.Open = true
	}
	return rule
}

// Way is how clients go about their calls.
type Way struct {
	// Word is what the user calls it.
	Word string
	// Name is what the table calls it.
	Name   string
	policy Policy
	learn  bool
	told   bool
}

// Ways are all there are, in the order of the table.
func Ways() []Way {
	return []Way{
		{"best", "nobody can be faster", Best, false, true},
		{"headgate", "headgate", Paced, true, true},
		{"learn", "headgate, told nothing", Paced, true, false},
		{"off", "headgate, learning off", Paced, false, true},
		{"loop", "retry loop, 5 attempts", Loop, false, false},
	}
}

// WhatIf is a change of the scenario.
type WhatIf struct {
	// Name is what the table calls it.
	Name  string
	apply func(*Scenario)
}

// ParseWhatIf reads "credentials=2", "clients=4", "concurrency=50", and what
// makes the first limit larger or smaller: "limit=+50%" (all of it),
// "rate=x2", "burst=x0.5".
func ParseWhatIf(text string) (*WhatIf, error) {
	what, value, _ := strings.Cut(text, "=")
	var number func(*Scenario) *int
	switch what {
	case "limit", "rate", "burst":
		factor, err := parseFactor(value)
		if err != nil {
			return nil, err
		}
		return &WhatIf{what + " " + value, func(s *Scenario) { s.Limits[0].scale(what, factor) }}, nil
	case "credentials":
		number = func(s *Scenario) *int { return &s.Credentials }
	case "clients":
		number = func(s *Scenario) *int { return &s.Clients }
	case "concurrency":
		number = func(s *Scenario) *int { return &s.Callers }
	default:
		return nil, fmt.Errorf("%q is none of limit, rate, burst, credentials, clients, concurrency", what)
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > MaxClients && what != "concurrency" || n > 1e6 {
		return nil, fmt.Errorf("%s=%s: takes a whole number from 1", what, value)
	}
	name := value + " " + what
	if what == "concurrency" {
		name = what + " " + value
	}
	return &WhatIf{name, func(s *Scenario) { *number(s) = n }}, nil
}

// MaxClients is how many processes a scenario may have, and how many
// credentials.
const MaxClients = 1000

// parseFactor reads "+50%" or "x2".
func parseFactor(text string) (float64, error) {
	f, err := 0.0, error(nil)
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		f, err = strconv.ParseFloat(strings.TrimSpace(percent), 64)
		f = 1 + f/100
	} else {
		f, err = strconv.ParseFloat(strings.TrimPrefix(text, "x"), 64)
	}
	if err != nil || !(f > 0 && f <= 1e6) {
		return 0, fmt.Errorf("%q is not a change: write +50%% or x2", text)
	}
	return f, nil
}

// scale makes a limit another size.
func (l *ScenarioLimit) scale(what string, factor float64) {
	if what != "rate" {
		l.Burst = max(1, l.Burst*factor)
	}
	if what == "burst" {
		return
	}
	l.Rate *= factor
	l.Max = int(math.Ceil(float64(l.Max) * factor))
}

// Variant is one row of a comparison.
type Variant struct {
	Way
	WhatIf *WhatIf
}

// Label is what the table calls it.
func (v Variant) Label() string {
	if v.WhatIf != nil {
		return v.WhatIf.Name
	}
	return v.Name
}

// Row is what came of a variant.
type Row struct {
	Variant
	Result
	// Levels are as many as the scenario has limits: over the buckets of
	// all credentials.
	Levels []LimitResult
}

// patience is how long after the last call the simulation goes on: by then a
// limit that can't keep up has shown it.
const patience = 30 * 24 * time.Hour

// network is how unevenly requests and answers travel.
const network = 500 * time.Microsecond

// config returns the run of a variant.
func (s Scenario) config(v Variant) Config {
	s.Limits = slices.Clone(s.Limits)
	if v.WhatIf != nil {
		v.WhatIf.apply(&s)
	}
	c := Config{
		Seed: s.Seed, RetryAfter: s.RetryAfter, Outages: s.Outages,
		OneWayJitter: network, Service: s.Latency, ServiceJitter: s.Jitter,
		Arrivals: s.Arrivals(), Horizon: s.Horizon, Until: s.Horizon + patience,
		Timeline: true,
	}
	// The first credential's limits come first, and those that all share.
	for _, l := range s.Limits {
		c.Limits = append(c.Limits, l.Limit)
	}
	for credential := range s.Credentials {
		client := Client{Policy: v.policy, Callers: s.Callers, Spread: 0.1}
		for i, l := range s.Limits {
			at := i
			if credential > 0 && !l.Shared {
				at = len(c.Limits)
				own := l.Limit
				own.Others = nil // they use the first one
				c.Limits = append(c.Limits, own)
			}
			client.Limits = append(client.Limits, at)
			if v.policy == Paced {
				client.Rules = append(client.Rules, l.rule(v.learn, v.told))
			}
		}
		for range s.Clients {
			c.Clients = append(c.Clients, client)
		}
	}
	return c
}

// Compare runs each variant, as many at once as there are processors. ended,
// if not nil, counts the calls that have come to an end in all of them.
func (s Scenario) Compare(ctx context.Context, variants []Variant, ended *atomic.Int64) ([]Row, error) {
	rows := make([]Row, len(variants))
	todo := make(chan int, len(variants))
	for i := range variants {
		todo <- i
	}
	close(todo)
	var workers sync.WaitGroup
	for range min(len(variants), runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := range todo {
				rows[i] = s.run(ctx, variants[i], ended)
			}
		})
	}
	workers.Wait()
	return rows, ctx.Err()
}

func (s Scenario) run(ctx context.Context, v Variant, ended *atomic.Int64) Row {
	c := s.config(v)
	before := 0
	c.Poll = func(status Status) bool {
		if ended != nil {
			ended.Add(int64(status.Ended - before))
			before = status.Ended
		}
		return ctx.Err() == nil
	}
	row := Row{Variant: v, Result: Run(c)}
	if ended != nil {
		ended.Add(int64(row.Accepted + row.Lost - before))
	}
	// Each limit, over the buckets that it has.
	for i := range s.Limits {
		sum, n := LimitResult{}, 0.0
		for _, at := range c.bucketsOf(i, len(s.Limits)) {
			sum.Level += row.Result.Limits[at].Level
			sum.Empty += row.Result.Limits[at].Empty
			n++
		}
		row.Levels = append(row.Levels, LimitResult{sum.Level / n, sum.Empty / n})
	}
	return row
}

// bucketsOf returns the indexes of the server's buckets that limit i of n has.
func (c *Config) bucketsOf(i, n int) []int {
	seen := map[int]bool{}
	var all []int
	for _, client := range c.Clients {
		if at := client.Limits[i]; !seen[at] {
			seen[at] = true
			all = append(all, at)
		}
	}
	return all
}

// Even returns what a client believes that is told a rate and nothing else.
func Even(n float64, per time.Duration) bucket.Rule {
	rate, burst := headgate.Even(n, per)
	return bucket.Rule{Rate: rate, Burst: burst}
}
