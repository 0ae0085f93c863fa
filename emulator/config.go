package emulator

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"
)

// The credentials that a [Config] without Clients accepts.
const (
	DefaultClientID     = "emulator-client"
	DefaultClientSecret = "emulator-secret"
)

// MaxBodyBytes is the largest request body that the API takes; a larger one is
// answered with 413 (the platform's request.bytes.max).
const MaxBodyBytes = 512_000

// Config says what the emulator imitates. The zero value is the platform with
// its published default: 300 requests per minute and token, no faults, no
// latency. [New] copies it, so changes made later have no effect.
type Config struct {
	// Seed feeds every random choice: faults by share, jitter, fluctuating
	// Retry-After, ids. The same seed and the same order of arrivals give the
	// same answers. Zero is a seed like any other.
	Seed uint64

	// Clients may log in. Nil means one: DefaultClientID with DefaultClientSecret.
	Clients []Client
	// TokenLifetime is how long a token is good for, and what expires_in
	// announces (in whole seconds, rounded down). Zero means 86,399 s; otherwise
	// at least one second.
	TokenLifetime time.Duration
	// LoginLatency is how long a log-in takes. The token is issued, and its
	// life begins, at the end of it. Zero means no time.
	LoginLatency time.Duration
	// LoginLimit is the log-in's own limit, refused with 400 as the platform
	// does. Its Name, Namespace, Value and Match are not used; Per is PerClient
	// (the default) or PerOrg. The zero Limit means none.
	LoginLimit Limit
	// AnyToken lets every request in, with or without a token. Requests with
	// the same Authorization header then share a token's limits. For clients
	// that are tested without a log-in.
	AnyToken bool

	// Endpoints says which forms of flow execution exist; the other answers
	// 404. Zero means EndpointsBoth.
	Endpoints Endpoints
	// Flows are the ids of the flows that exist; any other is answered with
	// 404. Nil means that every flow exists.
	Flows []string
	// Latency is how long an accepted flow execution or launch takes to be
	// answered, plus a uniform share of Jitter. It is executed when it is
	// accepted, not when it is answered. Zero means no time.
	Latency, Jitter time.Duration
	// ReadLatency is how long every other accepted call takes (status polls,
	// limits). Zero means no time.
	ReadLatency time.Duration
	// RunTime is how long a launched execution stays RUNNING, plus a uniform
	// share of RunJitter. Zero means 2 s; negative means that it ends at once.
	RunTime, RunJitter time.Duration
	// Outcomes are the shares of launched executions that do not end as COMPLETED.
	Outcomes Outcomes
	// KeepExecutions is how many launched executions are remembered for status
	// polls; older ones are answered with 404. Zero means 100,000.
	KeepExecutions int

	// Limits apply to every request under /api that they match; each is a rule
	// of its own, and one request may draw on several. Nil means the published
	// default: token.rate.per.minute, 300 in a fixed window of 60 s. An empty,
	// non-nil slice means no limit.
	Limits []Limit
	// RefusalsCost makes a refused request draw from every limit that it
	// matches, as an accepted one would (a bucket never below zero). By default
	// a refused request draws from none.
	RefusalsCost bool
	// RetryAfter is the form of the 429's Retry-After. Zero means RetryAfterCeil.
	RetryAfter RetryAfterMode
	// RetryAfterMin and RetryAfterMax bound RetryAfterFluctuating, in whole
	// seconds. Zero means 1 s and 30 s.
	RetryAfterMin, RetryAfterMax time.Duration
	// Message is the form of the 429's message. Zero means MessageSame.
	Message MessageForm
	// HideLimit leaves the `limit` object out of the 429's body.
	HideLimit bool

	// Rates are faults that happen to a share of all requests, at any time.
	Rates Rates
	// Script is a list of faults over time. For each request the faults are
	// tried in this order, then those of Rates; the first that hits decides.
	// Slow is the exception: it adds up and lets others hit too.
	Script []Fault
	// ScriptFromNew starts the script's clock at New. By default it starts at
	// the first request that is not a log-in. The ledger's times are relative
	// to the same start, so log-ins before it have negative ones.
	ScriptFromNew bool

	// Expected is how many distinct executions the run should bring; the
	// report's Lost is counted from it. Zero means unknown. See also
	// [Report.LostOf].
	Expected int
	// EarlyGrace is how long after an announced Retry-After was written an
	// arrival is still excused, because it was on the wire already. Zero means
	// 50 ms, which suits real networks; negative means none at all, which suits
	// fake time. See [Report] for the whole definition of early.
	EarlyGrace time.Duration
	// EarlyPerToken makes a 429 announce to the token that it answers alone, not
	// to everybody who draws on the limit that it names: for processes that
	// share a limit and know nothing of each other's answers.
	EarlyPerToken bool
	// LedgerRows is how many arrivals the ledger keeps, the first ones; later
	// ones are only counted. Zero means 100,000; negative means none. The
	// counters are exact in any case.
	LedgerRows int
	// Key names an execution from its request and body; executions with equal
	// keys are one that was doubled. Nil means the flow's id and a hash of the
	// body. It is called concurrently and must not keep the body.
	Key func(r *http.Request, body []byte) string
}

// Client is a pair of credentials that may log in. Its ID is in the ledger, its
// Secret is not.
type Client struct {
	ID     string
	Secret string
}

// Endpoints says which forms of flow execution exist.
type Endpoints string

// The values of [Endpoints].
const (
	EndpointsBoth    Endpoints = "both"
	EndpointsExecute Endpoints = "execute" // POST /api/v2/architect/flows/{flowId}/execute
	EndpointsLaunch  Endpoints = "launch"  // POST and GET /api/v2/flows/executions
)

// Outcomes are the shares, from 0 to 1 and together at most 1, of launched
// executions that end in another way than COMPLETED.
type Outcomes struct {
	Failed     float64 // end as FAILED, with flowErrorInfo
	Error      float64 // end as ERROR, with flowErrorInfo
	Terminated float64 // end as TERMINATED
}

// withDefaults returns the config with every default filled in.
func (c Config) withDefaults() Config {
	if c.Clients == nil {
		c.Clients = []Client{{ID: DefaultClientID, Secret: DefaultClientSecret}}
	}
	if c.Limits == nil {
		c.Limits = []Limit{{Algorithm: Fixed, Max: 300, Window: time.Minute}}
	}
	c.TokenLifetime = cmp.Or(c.TokenLifetime, 86_399*time.Second)
	c.Endpoints = cmp.Or(c.Endpoints, EndpointsBoth)
	c.RunTime = cmp.Or(c.RunTime, 2*time.Second)
	c.KeepExecutions = cmp.Or(c.KeepExecutions, 100_000)
	c.RetryAfter = cmp.Or(c.RetryAfter, RetryAfterCeil)
	c.RetryAfterMin = cmp.Or(c.RetryAfterMin, time.Second)
	c.RetryAfterMax = cmp.Or(c.RetryAfterMax, 30*time.Second)
	c.Message = cmp.Or(c.Message, MessageSame)
	c.EarlyGrace = max(0, cmp.Or(c.EarlyGrace, 50*time.Millisecond))
	c.LedgerRows = max(0, cmp.Or(c.LedgerRows, 100_000))

	c.Clients = slices.Clone(c.Clients)
	c.Flows = slices.Clone(c.Flows)
	c.Limits = slices.Clone(c.Limits)
	for i := range c.Limits {
		c.Limits[i] = c.Limits[i].withDefaults()
	}
	if c.LoginLimit != (Limit{}) {
		c.LoginLimit.Per = cmp.Or(c.LoginLimit.Per, PerClient)
		c.LoginLimit.Match = ""
		c.LoginLimit = c.LoginLimit.withDefaults()
	}
	c.Script = append(slices.Clone(c.Script), c.Rates.faults()...)
	for i := range c.Script {
		c.Script[i] = c.Script[i].withDefaults()
	}
	return c
}

// validate checks a config that has its defaults. Messages name the field.
func (c Config) validate() error {
	seen := make(map[string]bool)
	for i, cl := range c.Clients {
		if cl.ID == "" || seen[cl.ID] {
			return fmt.Errorf("emulator: Config.Clients[%d].ID must be unique and not empty, got %q", i, cl.ID)
		}
		seen[cl.ID] = true
	}
	if len(c.Clients) == 0 {
		return fmt.Errorf("emulator: Config.Clients must be nil or hold at least one client")
	}
	if c.TokenLifetime < time.Second {
		return fmt.Errorf("emulator: Config.TokenLifetime must be at least 1s, got %v", c.TokenLifetime)
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"LoginLatency", c.LoginLatency},
		{"Latency", c.Latency},
		{"Jitter", c.Jitter},
		{"ReadLatency", c.ReadLatency},
		{"RunJitter", c.RunJitter},
	} {
		if f.d < 0 {
			return fmt.Errorf("emulator: Config.%s must not be negative, got %v", f.name, f.d)
		}
	}
	if !slices.Contains([]Endpoints{EndpointsBoth, EndpointsExecute, EndpointsLaunch}, c.Endpoints) {
		return fmt.Errorf("emulator: Config.Endpoints must be both, execute or launch, got %q", c.Endpoints)
	}
	o := c.Outcomes
	if !isShare(o.Failed) || !isShare(o.Error) || !isShare(o.Terminated) || o.Failed+o.Error+o.Terminated > 1 {
		return fmt.Errorf("emulator: Config.Outcomes must be shares from 0 to 1, together at most 1, got %+v", o)
	}
	if c.KeepExecutions < 0 {
		return fmt.Errorf("emulator: Config.KeepExecutions must not be negative, got %d", c.KeepExecutions)
	}
	if c.Expected < 0 {
		return fmt.Errorf("emulator: Config.Expected must not be negative, got %d", c.Expected)
	}
	if !c.RetryAfter.valid() {
		return fmt.Errorf("emulator: Config.RetryAfter is unknown: %q", c.RetryAfter)
	}
	if c.RetryAfterMin < time.Second || c.RetryAfterMax < c.RetryAfterMin ||
		c.RetryAfterMin%time.Second != 0 || c.RetryAfterMax%time.Second != 0 {
		return fmt.Errorf("emulator: Config.RetryAfterMin and RetryAfterMax must be whole seconds, at least 1s, min before max, got %v and %v",
			c.RetryAfterMin, c.RetryAfterMax)
	}
	if !c.Message.valid() {
		return fmt.Errorf("emulator: Config.Message is unknown: %q", c.Message)
	}
	names := make(map[string]bool)
	for i, l := range c.Limits {
		field := fmt.Sprintf("Config.Limits[%d]", i)
		if err := l.validate(field); err != nil {
			return err
		}
		if names[l.Name] {
			return fmt.Errorf("emulator: %s.Name must be unique, got %q twice", field, l.Name)
		}
		names[l.Name] = true
	}
	if c.LoginLimit != (Limit{}) {
		if err := c.LoginLimit.validate("Config.LoginLimit"); err != nil {
			return err
		}
		if c.LoginLimit.Per != PerClient && c.LoginLimit.Per != PerOrg {
			return fmt.Errorf("emulator: Config.LoginLimit.Per must be client or org, got %q", c.LoginLimit.Per)
		}
	}
	if err := c.Rates.validate(); err != nil {
		return err
	}
	for i, f := range c.Script {
		if err := f.validate(fmt.Sprintf("Config.Script[%d]", i), c.Limits); err != nil {
			return err
		}
	}
	return nil
}

func isShare(x float64) bool { return x >= 0 && x <= 1 }

func isPositive(x float64) bool { return x > 0 && !math.IsInf(x, 1) }
