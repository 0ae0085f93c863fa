package emulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// step is a number of requests at one moment, and how many of them pass. A
// refused one must be told exactly how long to wait.
type step struct {
	at   time.Duration
	send int
	pass int
	wait time.Duration
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"bucket", Config{Limits: bucketOf(50, 100)}, []step{
			{0, 120, 100, 20 * ms},
			{19 * ms, 1, 0, 1 * ms},
			{20 * ms, 2, 1, 20 * ms},
			{30 * ms, 1, 0, 10 * ms},
			{1 * sec, 60, 49, 20 * ms},
			{1*sec + 20*ms - 1, 1, 0, 1},
			{1*sec + 20*ms, 2, 1, 20 * ms},
			{time.Hour, 120, 100, 20 * ms}, // never more than the burst
		}},
		{"bucket of an awkward rate", Config{Limits: bucketOf(3, 1)}, []step{
			{0, 2, 1, 333333334},
			{333333333, 1, 0, 1},
			{333333334, 2, 1, 333333334},
			{666666667, 1, 0, 1},
			{666666668, 1, 1, 0},
		}},
		{"bucket with a broken burst", Config{Limits: bucketOf(2, 1.5)}, []step{
			{0, 2, 1, 250 * ms},
			{250 * ms, 2, 1, 500 * ms},
		}},
		{"slow bucket", Config{Limits: bucketOf(1.0/3600, 1)}, []step{
			{0, 2, 1, time.Hour},
			{time.Hour, 1, 1, 0},
		}},
		{"fixed window opens at the first request", Config{Limits: []Limit{{Algorithm: Fixed, Max: 3, Window: 60 * sec}}}, []step{
			{7 * sec, 1, 1, 0},
			{40 * sec, 3, 2, 27 * sec},
			{67*sec - 1, 1, 0, 1},
			{67 * sec, 4, 3, 60 * sec},
			{200 * sec, 4, 3, 60 * sec}, // opens anew, not on a grid
		}},
		{"fixed windows by the clock", Config{Limits: []Limit{{Algorithm: Fixed, Max: 3, Window: 60 * sec, Phase: 50 * sec}}}, []step{
			{0, 2, 2, 0}, // the script starts, and the window is 50 s old
			{10*sec - 1, 2, 1, 1},
			{10 * sec, 4, 3, 60 * sec},
			{69 * sec, 1, 0, 1 * sec},
			{200 * sec, 4, 3, 50 * sec},
		}},
		{"sliding window", Config{Limits: []Limit{{Algorithm: Sliding, Max: 3, Window: 60 * sec}}}, []step{
			{0, 1, 1, 0},
			{40 * sec, 3, 2, 20 * sec},
			{60*sec - 1, 1, 0, 1},
			{60 * sec, 2, 1, 40 * sec},
			{100 * sec, 3, 2, 20 * sec},
		}},
		{"published default", Config{}, []step{{0, 301, 300, 60 * sec}, {60 * sec, 301, 300, 60 * sec}}},
		{"no limit", Config{Limits: []Limit{}}, []step{{0, 1000, 1000, 0}}},
		{"refusals cost: bucket", Config{Limits: bucketOf(1, 1), RefusalsCost: true}, []step{
			{0, 1, 1, 0},
			{900 * ms, 1, 0, 1 * sec}, // what had refilled is gone
			{1800 * ms, 1, 0, 1 * sec},
			{2800 * ms, 1, 1, 0},
		}},
		{"refusals cost: sliding", Config{Limits: []Limit{{Algorithm: Sliding, Max: 1, Window: 10 * sec}}, RefusalsCost: true}, []step{
			{0, 1, 1, 0},
			{9 * sec, 1, 0, 10 * sec},
			{18 * sec, 1, 0, 10 * sec},
			{28 * sec, 1, 1, 0},
		}},
		{"lowered half-way", Config{
			Limits: bucketOf(10, 10),
			Script: []Fault{{Kind: Change, Limit: "token.rate.per.minute", From: 10 * sec, Rate: 1, Burst: 2}},
		}, []step{
			{0, 11, 10, 100 * ms},
			{9*sec + 900*ms, 11, 10, 100 * ms},
			{10 * sec, 2, 1, 1 * sec}, // refilled 1 at the old rate
			{11 * sec, 2, 1, 1 * sec},
			{60 * sec, 3, 2, 1 * sec},
		}},
		{"raised half-way", Config{
			Limits: bucketOf(1, 1),
			Script: []Fault{{Kind: Change, Limit: "token.rate.per.minute", From: 10 * sec, Rate: 10, Burst: 5}},
		}, []step{
			{0, 2, 1, 1 * sec},
			{10 * sec, 2, 1, 100 * ms}, // a higher burst is not a gift
			{20 * sec, 6, 5, 100 * ms},
		}},
		{"window changed half-way", Config{
			Limits: []Limit{{Algorithm: Fixed, Max: 3}},
			Script: []Fault{{Kind: Change, Limit: "token.rate.per.minute", From: 10 * sec, Max: 1, Window: 20 * sec}},
		}, []step{
			{0, 2, 2, 0},
			{10 * sec, 1, 0, 10 * sec},
			{20 * sec, 2, 1, 20 * sec},
		}},
		{"other traffic on and off", Config{
			Limits: bucketOf(10, 10),
			Script: []Fault{{Kind: Traffic, Limit: "token.rate.per.minute", PerSecond: 8, From: 10 * sec, To: 20 * sec}},
		}, []step{
			{0, 11, 10, 100 * ms},
			{5 * sec, 11, 10, 100 * ms},
			{10 * sec, 11, 9, 100 * ms},    // theirs came first
			{11*sec + 1*ms, 3, 2, 99 * ms}, // 10.01 came in, 8 went to them
			{20 * sec, 100, 10, 100 * ms},
			{21 * sec, 11, 10, 100 * ms},
		}},
		{"other traffic before the first request", Config{
			Limits: bucketOf(10, 10),
			Script: []Fault{{Kind: Traffic, Limit: "token.rate.per.minute", PerSecond: 8}},
		}, []step{{100 * sec, 11, 9, 100 * ms}}}, // theirs of this instant; what was before found another bucket
		{"other traffic in a window", Config{
			Limits: []Limit{{Algorithm: Fixed, Max: 100}},
			Script: []Fault{{Kind: Traffic, Limit: "token.rate.per.minute", PerSecond: 1}},
		}, []step{
			{0, 100, 99, 60 * sec},
			{60 * sec, 100, 99, 60 * sec},
			{90 * sec, 1, 0, 30 * sec},
			{150 * sec, 100, 69, 30 * sec}, // theirs opened the window at 120 s
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.cfg.RetryAfter = RetryAfterExact
				tt.cfg.ScriptFromNew = true
				c := newTester(t, tt.cfg)
				start := time.Now()
				for _, st := range tt.steps {
					until(start, st.at)
					pass := 0
					for range st.send {
						r := c.execute()
						if r.status == 200 {
							pass++
							continue
						}
						c.wantStatus(r, 429)
						var waits float64
						if _, err := fmt.Sscan(r.header.Get("Retry-After"), &waits); err != nil {
							t.Fatal(err)
						}
						if got := time.Duration(math.Round(waits * 1e9)); st.wait != 0 && got != st.wait {
							t.Fatalf("at %v: told to wait %v, want %v", st.at, got, st.wait)
						}
					}
					if pass != st.pass {
						t.Fatalf("at %v: %d of %d passed, want %d", st.at, pass, st.send, st.pass)
					}
				}
			})
		})
	}
}

// A request draws on all of its limits or on none, and the 429 names the one
// that asks for the longest wait.
func TestSeveralLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{RetryAfter: RetryAfterExact, Limits: []Limit{
			{Name: "token", Rate: 10, Burst: 10},
			{Name: "org", Namespace: "architect", Per: PerOrg, Rate: 1, Burst: 8},
			{Name: "launches", Per: PerPath, Match: "POST /api/v2/flows/executions", Algorithm: Sliding, Max: 2, Window: 30 * sec},
		}})
		named := func(r reply) string {
			c.wantStatus(r, 429)
			var b struct {
				Limit struct{ Key, Namespace string }
			}
			r.decode(t, &b)
			return b.Limit.Key + " " + r.header.Get("Retry-After")
		}
		launch := func() reply { return c.do("POST", launchPath, `{"flowId":"F"}`) }
		c.wantStatus(launch(), 200)
		c.wantStatus(launch(), 200)
		for range 20 { // draws on neither of the others
			if got := named(launch()); got != "launches 30" {
				t.Fatalf("refused by %q", got)
			}
		}
		for range 6 { // so 6 are left of the org's 8
			c.wantStatus(c.do("GET", limitsPath, ""), 200)
		}
		if got := named(c.execute()); got != "org 1" {
			t.Fatalf("refused by %q", got)
		}
		if got := named(launch()); got != "launches 30" { // not "org": 30 s is longer than 1 s
			t.Fatalf("refused by %q", got)
		}
		// Another token has a bucket of its own, but shares path and org.
		c.token = c.IssueToken()
		if got := named(c.execute()); got != "org 1" {
			t.Fatalf("refused by %q", got)
		}
		time.Sleep(30 * sec)
		c.wantStatus(launch(), 200)
		c.wantStatus(launch(), 200)
		if got := named(launch()); got != "launches 30" {
			t.Fatalf("refused by %q", got)
		}
	})
}

func TestPer(t *testing.T) {
	for _, tt := range []struct {
		per  Per
		want [4]int // same token; other token of the client; other client; other path
	}{
		{PerToken, [4]int{429, 200, 200, 429}},
		{PerClient, [4]int{429, 429, 200, 429}},
		{PerOrg, [4]int{429, 429, 429, 429}},
		{PerPath, [4]int{429, 429, 429, 200}},
	} {
		t.Run(string(tt.per), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTester(t, Config{
					Clients: []Client{{"one", "emulator-secret"}, {"two", "emulator-secret"}},
					Limits:  []Limit{{Per: tt.per, Rate: 1, Burst: 1}},
				})
				c.wantStatus(c.execute(), 200)
				first := c.token
				var got [4]int
				got[0] = c.do("POST", "/api/v2/architect/flows/G/execute", "{}").status // another id, the same path
				c.token = c.IssueToken()
				got[1] = c.execute().status
				var b struct {
					Token string `json:"access_token"`
				}
				c.login("two", "emulator-secret", "grant_type=client_credentials").decode(t, &b)
				c.token = b.Token
				got[2] = c.execute().status
				c.token = first
				got[3] = c.do("GET", limitsPath, "").status
				if got != tt.want {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// Over any arrivals, no interval sees more than burst + rate·t accepted; and a
// bucket is no stricter than that: refused means that the level was below 1.
func TestBucketProperty(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 0))
		rate := math.Exp(rng.Float64()*8 - 2)
		burst := 1 + rng.Float64()*50
		m := newMeter(newRule(Limit{Rate: rate, Burst: burst}.withDefaults(), nil), "", 0)
		var at time.Duration
		var taken []time.Duration
		level, last := burst, time.Duration(0) // kept step by step, as nobody should
		for range 1500 {
			if rng.IntN(3) > 0 {
				at += time.Duration(rng.ExpFloat64() / rate * 1e9 * math.Exp(rng.Float64()*4-2.5))
			}
			m.advance(at)
			level, last = min(burst, level+rate*(at-last).Seconds()), at
			ok, wait := m.ready(at)
			if math.Abs(level-1) > 1e-6 && ok != (level >= 1) {
				t.Fatalf("seed %d at %v: ready is %v at level %v", seed, at, ok, level)
			}
			if ok {
				m.take(at)
				m.accepted++
				taken = append(taken, at)
				level--
				continue
			}
			probe := *m
			if early, _ := probe.ready(at + wait - wait/1000 - 2); early && wait > 2 {
				t.Fatalf("seed %d at %v: the wait of %v is too long", seed, at, wait)
			}
			if ok, _ := probe.ready(at + wait); !ok {
				t.Fatalf("seed %d at %v: not ready after the wait of %v", seed, at, wait)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				if n, can := float64(j-i+1), burst+rate*(taken[j]-taken[i]).Seconds(); n > can+1e-6 {
					t.Fatalf("seed %d: %v accepted between %v and %v, possible are %v", seed, n, taken[i], taken[j], can)
				}
			}
		}
		if use := float64(len(taken)) / m.rule.possible(m.first, m.last); use > 1+1e-9 {
			t.Fatalf("seed %d: use is %v", seed, use)
		}
		if ideal := m.rule.ideal(m.first, int64(len(taken))); ideal > m.last-m.first+1 {
			t.Fatalf("seed %d: ideal %v is longer than the span %v", seed, ideal, m.last-m.first)
		}
	}
}

func TestSlidingProperty(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 0))
		limit := Limit{Algorithm: Sliding, Max: 1 + rng.IntN(20), Window: time.Duration(1+rng.IntN(60)) * sec}
		m := newMeter(newRule(limit, nil), "", 0)
		var at time.Duration
		var taken []time.Duration
		for range 1000 {
			at += time.Duration(rng.ExpFloat64() * float64(limit.Window) / float64(limit.Max) * 0.7)
			before := 0 // counted the naive way
			for _, x := range taken {
				if x > at-limit.Window {
					before++
				}
			}
			if ok, _ := m.ready(at); ok != (before < limit.Max) {
				t.Fatalf("seed %d at %v: ready is %v with %d of %d", seed, at, ok, before, limit.Max)
			} else if ok {
				m.take(at)
				m.accepted++
				taken = append(taken, at)
			}
		}
	}
}

// Rounding must not pile up: a client that keeps exactly to the pace for a very
// long time is never refused.
func TestBucketDoesNotDrift(t *testing.T) {
	m := newMeter(newRule(Limit{Rate: 7, Burst: 2}.withDefaults(), nil), "", 0)
	m.take(0) // from now on it is never full, so nothing is lost to the brim
	for k := range 1_000_000 {
		at := time.Duration(math.Ceil(float64(k) * 1e9 / 7))
		if ok, wait := m.ready(at); !ok {
			t.Fatalf("request %d at %v is refused for %v", k, at, wait)
		}
		m.take(at)
	}
}

func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, method, path string
		want                  bool
	}{
		{"", "GET", "/api/v2/x", true},
		{"", "GET", "/apix", false},
		{"/api/v2/flows/executions", "GET", "/api/v2/flows/executions", true},
		{"/api/v2/flows/executions", "GET", "/api/v2/flows/executions/1", false},
		{"/api/v2/flows/executions", "GET", "/api/v2/flows", false},
		{"/api/v2/flows/executions/*", "GET", "/api/v2/flows/executions/1", true},
		{"/api/v2/flows/executions/*", "GET", "/api/v2/flows/executions/", false},
		{"/api/v2/flows/executions/*", "GET", "/api/v2/flows/executions", false},
		{"/api/v2/flows/executions/*", "GET", "/api/v2/flows/executions/1/2", false},
		{"/api/v2/*/executions", "GET", "/api/v2/flows/executions", true},
		{"/api/v2/flows/**", "GET", "/api/v2/flows/executions/1", true},
		{"/api/v2/flows/**", "GET", "/api/v2/flows", true},
		{"/api/v2/flows/**", "GET", "/api/v2/flowsx", false},
		{"POST /api/v2/flows/**", "GET", "/api/v2/flows/1", false},
		{"POST /api/v2/flows/**", "POST", "/api/v2/flows/1", true},
	} {
		if got := parsePattern(tt.pattern).matches(tt.method, tt.path); got != tt.want {
			t.Errorf("%q on %s %s is %v", tt.pattern, tt.method, tt.path, got)
		}
	}
}
