package simulate

import (
	"flag"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

var (
	seedsFlag = flag.Int("seeds", defaultSeeds, "how many seeds of each scenario")
	only      = flag.String("only", "", "scenarios whose name contains this")
	all       = flag.Bool("all", false, "with -events: accepted requests too")
	who       = flag.Int("client", -1, "with -events: of this client alone")
	events    = flag.Int("events", -1, "print the refusals of this seed")
)

type bound struct{ span, worst, refused float64 }

type scenario struct {
	name  string
	bound bound
	jain  float64
	cfg   func(seed uint64) Config
	ideal func(c Config, r Result) float64
}

const ms = time.Millisecond

func base(l Limit) Config {
	return Config{Limits: []Limit{l}, Service: 5 * ms, ServiceJitter: 1 * ms, OneWayJitter: 500 * time.Microsecond}
}

func told(rate, burst float64) []bucket.Rule {
	return []bucket.Rule{{Rate: rate, Burst: burst, Learn: true}}
}

var nothing = []bucket.Rule{{Learn: true}}

func one(rules []bucket.Rule, n int) []Client {
	return []Client{{Rules: rules, N: n, Callers: 200, Spread: 0.1}}
}

// idealBucket is the span of a client that knows everything, and loses nothing to
// whole requests.
func idealBucket(c Config, r Result) float64 {
	n := float64(r.Accepted)
	l := c.Limits[0]
	rate, level, done := l.Rate, l.Burst, 0.0
	t := 0.0
	const dt = 0.001
	ch := 0
	for done < n {
		out := false
		for _, o := range c.Outages {
			if t >= o.From.Seconds() && t < o.To.Seconds() {
				out = true
			}
		}
		if !out {
			take := min(level, n-done)
			done += take
			level -= take
		}
		for ch < len(l.Changes) && l.Changes[ch].At.Seconds() <= t {
			rate, l.Burst = l.Changes[ch].Rate, l.Changes[ch].Burst
			level = min(level, l.Burst)
			ch++
		}
		used := 0.0
		for _, o := range l.Others {
			if t >= o.From.Seconds() && (o.To == 0 || t < o.To.Seconds()) {
				used += o.PerSecond
			}
		}
		level = min(l.Burst, level+(rate-used)*dt)
		t += dt
	}
	return t - dt
}

func idealWindow(c Config, r Result) float64 {
	l := c.Limits[0]
	return float64((r.Accepted-1)/l.Max) * l.Window.Seconds()
}

func procs(n, each int, rules []bucket.Rule) func(uint64) Config {
	return func(seed uint64) Config {
		c := base(Limit{Rate: 50, Burst: 100})
		for range n {
			c.Clients = append(c.Clients, Client{Rules: rules, N: each, Callers: 200, Spread: 0.1})
		}
		return c
	}
}

// lowThenBacklog is a minute of few calls, in lots five times a second, and then
// n at once.
func lowThenBacklog(perSecond, n int) func(*Config, uint64) {
	return func(c *Config, _ uint64) {
		c.Service = 200 * ms
		c.Clients[0].N, c.Clients[0].Callers = 0, 200
		lot, at := perSecond/5, time.Duration(0)
		c.Arrivals = func() (Arrival, bool) {
			defer func() { at += time.Second / 5 }()
			switch {
			case at < time.Minute:
				return Arrival{At: at, Count: lot}, true
			case at < time.Minute+time.Second/5:
				return Arrival{At: at, Count: n}, true
			}
			return Arrival{}, false
		}
	}
}

// idealLow is a minute, and the backlog less a full bucket.
func idealLow(rate float64, n int) func(Config, Result) float64 {
	return func(c Config, _ Result) float64 { return 60 + (float64(n)-c.Limits[0].Burst)/rate }
}

func scenarios() []scenario {
	b50 := Limit{Rate: 50, Burst: 100}
	simple := func(l Limit, rules []bucket.Rule, n int, more func(*Config, uint64)) func(uint64) Config {
		return func(seed uint64) Config {
			c := base(l)
			c.Clients = one(rules, n)
			if more != nil {
				more(&c, seed)
			}
			return c
		}
	}
	phase := func(seed uint64, of time.Duration) time.Duration {
		return time.Duration(float64(of) * math.Mod(float64(seed)*0.618034, 1))
	}
	onOff := func(c *Config, seed uint64) {
		for at := phase(seed, 20*time.Second) - 20*time.Second; at < 300*time.Second; at += 20 * time.Second {
			if at+10*time.Second > 0 {
				c.Limits[0].Others = append(c.Limits[0].Others, Traffic{From: max(0, at), To: at + 10*time.Second, PerSecond: 20})
			}
		}
	}
	halves := func(c *Config, seed uint64) {
		p := phase(seed, 5*time.Second)
		c.Limits[0].Changes = []Change{{5*time.Second + p, 25, 100}, {20*time.Second + p, 50, 100}}
	}
	lat := func(oneWay, service time.Duration) func(*Config, uint64) {
		return func(c *Config, _ uint64) { c.OneWay, c.Service = oneWay, service }
	}
	ra := func(m RetryAfter) func(*Config, uint64) {
		return func(c *Config, _ uint64) { c.RetryAfter = m }
	}
	return []scenario{
		{"known", bound{1.01, 1.02, .2}, 0, simple(b50, told(50, 100), 1000, nil), idealBucket},
		{"known N=5000", bound{1.01, 1.02, .2}, 0, simple(b50, told(50, 100), 5000, nil), idealBucket},
		{"untold", bound{1.03, 1.06, 1}, 0, simple(b50, nothing, 1000, nil), idealBucket},
		{"untold N=5000", bound{1.03, 1.06, 1}, 0, simple(b50, nothing, 5000, nil), idealBucket},
		{"untold 100ms service", bound{1.06, 1.10, 5}, 0, simple(b50, nothing, 1000, lat(0, 100*ms)), idealBucket},
		{"untold 50ms oneway", bound{1.06, 1.10, 5}, 0, simple(b50, nothing, 1000, lat(50*ms, 5*ms)), idealBucket},
		{"untold 100ms oneway", bound{1.06, 1.10, 5}, 0, simple(b50, nothing, 1000, lat(100*ms, 5*ms)), idealBucket},
		{"told50 gives35", bound{1.03, 1.05, 1}, 0, simple(Limit{Rate: 35, Burst: 100}, told(50, 100), 1000, nil), idealBucket},
		{"told50 gives80 4000", bound{1.20, 1.30, .5}, 0, simple(Limit{Rate: 80, Burst: 100}, told(50, 100), 4000, nil), idealBucket},
		{"others20 told", bound{1.04, 1.13, 1.5}, 0, simple(b50, told(50, 100), 1000, func(c *Config, _ uint64) { c.Limits[0].Others = []Traffic{{PerSecond: 20}} }), idealBucket},
		{"others20 untold", bound{1.04, 1.13, 1.5}, 0, simple(b50, nothing, 1000, func(c *Config, _ uint64) { c.Limits[0].Others = []Traffic{{PerSecond: 20}} }), idealBucket},
		{"others20 poisson told", bound{1.04, 1.13, 1.5}, 0, simple(b50, told(50, 100), 1000, func(c *Config, _ uint64) { c.Limits[0].Others = []Traffic{{PerSecond: 20, Poisson: true}} }), idealBucket},
		{"others20 poisson untold", bound{1.04, 1.13, 1.5}, 0, simple(b50, nothing, 1000, func(c *Config, _ uint64) { c.Limits[0].Others = []Traffic{{PerSecond: 20, Poisson: true}} }), idealBucket},
		{"others onoff told", bound{1.12, 1.30, 1}, 0, simple(b50, told(50, 100), 1000, onOff), idealBucket},
		{"others onoff untold", bound{1.12, 1.30, 1}, 0, simple(b50, nothing, 1000, onOff), idealBucket},
		{"halves doubles told", bound{1.08, 1.12, 1}, 0, simple(b50, told(50, 100), 2000, halves), idealBucket},
		{"halves doubles untold", bound{1.08, 1.12, 1}, 0, simple(b50, nothing, 2000, halves), idealBucket},
		{"fixed300/6 untold", bound{1.10, 1.25, 1}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}, nothing, 1000, nil), idealWindow},
		{"slide300/6 untold", bound{1.10, 1.25, 1}, 0, simple(Limit{Algorithm: Sliding, Max: 300, Window: 6 * time.Second}, nothing, 1000, nil), idealWindow},
		{"fixed300/60 told 1500", bound{1.05, 1.27, .5}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: time.Minute}, []bucket.Rule{{Max: 300, Window: time.Minute, Learn: true}}, 1500, nil), idealWindow},
		{"outage5 known", bound{1.03, 1.05, .5}, 0, simple(b50, told(50, 100), 1000, func(c *Config, s uint64) {
			c.Outages = []Outage{{8*time.Second + phase(s, time.Second), 13*time.Second + phase(s, time.Second)}}
		}), idealBucket},
		{"no RA untold", bound{1.05, 1.10, 1}, 0, simple(b50, nothing, 1000, ra(Absent)), idealBucket},
		{"RA 1..30 untold", bound{4.5, 7, 1}, 0, simple(b50, nothing, 1000, ra(Fluctuating)), idealBucket},
		{"r=1000 B=1000 20000", bound{1.10, 1.15, .7}, 0, simple(Limit{Rate: 1000, Burst: 1000}, nothing, 20000, nil), idealBucket},
		{"B=10 untold", bound{1.15, 1.40, 1}, 0, simple(Limit{Rate: 50, Burst: 10}, nothing, 1000, nil), idealBucket},
		{"15 procs N=1000", bound{1.05, 1.10, 5.5}, 0.9, procs(15, 1000, nothing), idealBucket},
		{"4 procs N=500", bound{1.10, 1.30, 2}, 0.85, procs(4, 500, nothing), idealBucket},
		{"1of4 told", bound{1.03, 1.08, 1}, 0, simple(b50, told(50, 100), 1000, nil), idealBucket},
		{"~r=5 B=60 untold 1500", bound{1.04, 1.11, 2.1}, 0, simple(Limit{Rate: 5, Burst: 60}, nothing, 1500, nil), idealBucket},
		{"~r=5 B=60 told 1500", bound{1.04, 1.11, 0.3}, 0, simple(Limit{Rate: 5, Burst: 60}, told(5, 60), 1500, nil), idealBucket},
		{"~r=5 B=5 told 20000", bound{1.04, 1.11, 0.3}, 0, simple(Limit{Rate: 5, Burst: 5}, told(5, 5), 20000, func(c *Config, _ uint64) { c.Service, c.ServiceJitter = 200*ms, 50*ms }), idealBucket},
		{"~r=5 B=60 told 20000", bound{1.03, 1.11, 0.3}, 0, simple(Limit{Rate: 5, Burst: 60}, told(5, 60), 20000, func(c *Config, _ uint64) { c.Service, c.ServiceJitter = 200*ms, 50*ms }), idealBucket},
		{"~r=5 B=60 untold 20000", bound{1.03, 1.11, 0.5}, 0, simple(Limit{Rate: 5, Burst: 60}, nothing, 20000, func(c *Config, _ uint64) { c.Service, c.ServiceJitter = 200*ms, 50*ms }), idealBucket},
		{"~r=50 untold 20000", bound{1.03, 1.11, 0.3}, 0, simple(b50, nothing, 20000, nil), idealBucket},
		{"~r=150 B=100 told 20000", bound{1.05, 1.1, 0.5}, 0, simple(Limit{Rate: 150, Burst: 100}, told(150, 100), 20000, lat(0, 200*ms)), idealBucket},
		{"~r=150 B=100 untold 20000", bound{1.16, 1.22, 0.5}, 0, simple(Limit{Rate: 150, Burst: 100}, nothing, 20000, lat(0, 200*ms)), idealBucket},
		{"~r=150 B=100 low, then backlog, untold", bound{1.18, 1.25, 0.5}, 0, simple(Limit{Rate: 150, Burst: 100}, nothing, 0, lowThenBacklog(75, 20000)), idealLow(150, 20000)},
		{"~r=50 B=50 low, then backlog, untold", bound{1.1, 1.15, 0.5}, 0, simple(Limit{Rate: 50, Burst: 50}, nothing, 0, lowThenBacklog(40, 10000)), idealLow(50, 10000)},
		{"~r=50 B=100 low, then backlog, untold", bound{1.05, 1.1, 0.5}, 0, simple(Limit{Rate: 50, Burst: 100}, nothing, 0, lowThenBacklog(20, 10000)), idealLow(50, 10000)},
		{"~RA exact untold", bound{1.04, 1.12, 2.8}, 0, simple(b50, nothing, 1000, ra(Exact)), idealBucket},
		{"~RA padded untold", bound{1.53, 2.18, 0.7}, 0, simple(b50, nothing, 1000, ra(Padded)), idealBucket},
		{"~RA short untold", bound{1.04, 1.13, 1.1}, 0, simple(b50, nothing, 1000, ra(Short)), idealBucket},
		{"~RA short fixed300/6", bound{1.05, 1.1, 0.8}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}, nothing, 1000, ra(Short)), idealWindow},
		{"~RA short slide300/6", bound{1.05, 2.2, 2.0}, 0, simple(Limit{Algorithm: Sliding, Max: 300, Window: 6 * time.Second}, nothing, 1000, ra(Short)), idealWindow},
		{"~RA exact fixed300/6", bound{1.07, 1.17, 0.6}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}, nothing, 1000, ra(Exact)), idealWindow},
		{"~RA absent fixed300/6", bound{2.67, 2.9, 1.5}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}, nothing, 1000, ra(Absent)), idealWindow},
		{"~fixed300/6 20/s others", bound{1.11, 1.21, 0.7}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second, Others: []Traffic{{PerSecond: 15}}}, nothing, 1000, nil), idealWindow},
		{"~fixed1000/1 untold", bound{1.74, 1.94, 0.7}, 0, simple(Limit{Algorithm: Fixed, Max: 100, Window: time.Second}, nothing, 2000, nil), idealWindow},
		{"~told bucket, fixed300/6", bound{1.13, 1.21, 0.5}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}, told(50, 100), 1000, nil), idealWindow},
		{"~4 procs callers 50", bound{1.11, 1.34, 1.8}, 0, func(seed uint64) Config {
			c := procs(4, 500, nothing)(seed)
			for i := range c.Clients {
				c.Clients[i].Callers = 50
			}
			return c
		}, idealBucket},
		{"~15 procs told callers 20", bound{1.04, 1.14, 6.7}, 0, func(seed uint64) Config {
			c := procs(15, 1000, told(50, 100))(seed)
			for i := range c.Clients {
				c.Clients[i].Callers = 20
			}
			return c
		}, idealBucket},
		{"~4 procs fixed300/6", bound{1.24, 1.33, 1.3}, 0, func(seed uint64) Config {
			c := procs(4, 500, nothing)(seed)
			c.Limits[0] = Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}
			return c
		}, idealWindow},
		{"~RA 1..30 told", bound{1.93, 2.94, 0.2}, 0, simple(b50, told(50, 100), 1000, ra(Fluctuating)), idealBucket},
		{"~untold 1s service", bound{1.59, 1.7, 3.7}, 0, simple(b50, nothing, 1000, lat(0, time.Second)), idealBucket},
		{"~known 1s service", bound{1.1, 1.18, 0.2}, 0, simple(b50, told(50, 100), 1000, lat(0, time.Second)), idealBucket},
		{"~known 100ms", bound{1.05, 1.12, 0.2}, 0, simple(b50, told(50, 100), 1000, lat(50*ms, 5*ms)), idealBucket},
		{"~told50 gives35 100ms", bound{1.04, 1.11, 1.3}, 0, simple(Limit{Rate: 35, Burst: 100}, told(50, 100), 1000, lat(50*ms, 5*ms)), idealBucket},
		{"~told50/100 gives50/40", bound{1.14, 1.23, 0.6}, 0, simple(Limit{Rate: 50, Burst: 40}, told(50, 100), 1000, nil), idealBucket},
		{"~told 300/min bucket 5/60", bound{1.04, 1.11, 0.5}, 0, simple(Limit{Rate: 5, Burst: 60}, []bucket.Rule{{Max: 300, Window: time.Minute, Learn: true}}, 1500, nil), idealBucket},
		{"~told 300/min slide", bound{1.04, 1.11, 0.3}, 0, simple(Limit{Algorithm: Sliding, Max: 300, Window: time.Minute}, []bucket.Rule{{Max: 300, Window: time.Minute, Learn: true}}, 1500, nil), idealWindow},
		{"~fixed 300/60 untold", bound{1.04, 1.12, 0.5}, 0, simple(Limit{Algorithm: Fixed, Max: 300, Window: time.Minute}, nothing, 1500, nil), idealWindow},
		{"~fixed 120/10 untold", bound{1.06, 1.17, 0.8}, 0, simple(Limit{Algorithm: Fixed, Max: 120, Window: 10 * time.Second}, nothing, 1000, nil), idealWindow},
		{"~slide 500/5 untold", bound{1.1, 1.19, 0.5}, 0, simple(Limit{Algorithm: Sliding, Max: 500, Window: 5 * time.Second}, nothing, 2700, nil), idealWindow},
		{"~r=.5 B=20 untold", bound{1.04, 1.11, 23.2}, 0, simple(Limit{Rate: .5, Burst: 20}, nothing, 200, nil), idealBucket},
		{"~r=200 B=50 untold", bound{1.14, 1.25, 0.2}, 0, simple(Limit{Rate: 200, Burst: 50}, nothing, 4000, nil), idealBucket},
		{"~r=1000 B=100 untold", bound{1.27, 1.65, 0.2}, 0, simple(Limit{Rate: 1000, Burst: 100}, nothing, 20000, nil), idealBucket},
		{"~untold B=500 N=2000", bound{1.04, 1.11, 0.7}, 0, simple(Limit{Rate: 50, Burst: 500}, nothing, 2000, nil), idealBucket},
		{"~others35 untold", bound{1.02, 1.24, 1.8}, 0, simple(b50, nothing, 1000, func(c *Config, _ uint64) { c.Limits[0].Others = []Traffic{{PerSecond: 35, Poisson: true}} }), idealBucket},
		{"~doubles untold", bound{1.04, 1.15, 0.8}, 0, simple(Limit{Rate: 25, Burst: 100}, nothing, 2000, func(c *Config, s uint64) {
			c.Limits[0].Changes = []Change{{10*time.Second + phase(s, 10*time.Second), 50, 100}}
		}), idealBucket},
		{"~15 procs N=200", bound{1.11, 1.48, 6.9}, 0, procs(15, 200, nothing), idealBucket},
		{"~15 procs told N=1000", bound{1.05, 1.18, 8.4}, 0, procs(15, 1000, told(50, 100)), idealBucket},
		{"~4 procs told N=500", bound{1.11, 1.34, 1.8}, 0, procs(4, 500, told(50, 100)), idealBucket},
		{"~2 procs N=1000", bound{1.1, 1.37, 1.2}, 0, procs(2, 1000, nothing), idealBucket},
		{"~20 callers untold", bound{1.04, 1.14, 1}, 0, func(seed uint64) Config {
			c := base(b50)
			c.Clients = one(nothing, 1000)
			c.Clients[0].Callers = 20
			return c
		}, idealBucket},
	}
}

// What the learning of limits reaches, over many seeds: the median and the worst
// are asserted. Rows that begin with ~ are no promise of the documentation; their
// bounds are what was reached, with room.
//
//	go test -run TestTable -v -seeds 300 -only 'told nothing' .
//	go test -run TestTable -v -only 'known' -events 3 .
func TestTable(t *testing.T) {
	for _, s := range scenarios() {
		if strings.Contains(s.name, *only) {
			t.Run(s.name, s.test)
		}
	}
}

func (s scenario) test(t *testing.T) {
	if *events >= 0 {
		cfg := s.cfg(uint64(*events))
		cfg.Seed = uint64(*events)
		Watch(cfg, func(x Sample) {
			if (x.Kind != "accepted" || *all) && (*who < 0 || *who == x.Client) {
				t.Logf("%8.3f c%d %-8s level %7.2f %+v", x.At.Seconds(), x.Client, x.Kind, x.Level, x.Bucket.Estimate(x.At))
			}
		})
	}
	var spans, refused, jains []float64
	for seed := range *seedsFlag {
		cfg := s.cfg(uint64(seed))
		cfg.Seed = uint64(seed)
		r := Run(cfg)
		n, sum, squares := 0, 0.0, 0.0
		for i, c := range r.Clients {
			n += cfg.Clients[i].N
			x := float64(c.Accepted) / c.Done.Seconds()
			sum, squares = sum+x, squares+x*x
		}
		if cfg.Arrivals == nil && r.Accepted != n || r.Arrived != r.Accepted || r.Early > 0 || r.Failed > 1 && len(cfg.Clients) == 1 {
			t.Errorf("seed %d: %d of %d accepted, %d early, %d met the outage", seed, r.Accepted, n, r.Early, r.Failed)
		}
		spans = append(spans, r.Span.Seconds()/s.ideal(cfg, r))
		refused = append(refused, 100*float64(r.Refused)/float64(r.Accepted))
		jains = append(jains, sum*sum/float64(len(r.Clients))/squares)
	}
	slices.Sort(spans)
	slices.Sort(refused)
	slices.Sort(jains)
	last := len(spans) - 1
	t.Logf("%-26s span %.3f / %.3f of the ideal, 429s %.2f / %.2f %%, Jain %.2f / %.2f", s.name, spans[last/2], spans[last], refused[last/2], refused[last], jains[last/2], jains[0])
	// A median of few says little.
	if len(spans) >= 30 && spans[last/2] > s.bound.span || spans[last] > s.bound.worst {
		t.Errorf("span %.3f / %.3f of the ideal, want at most %.2f / %.2f", spans[last/2], spans[last], s.bound.span, s.bound.worst)
	}
	if refused[last] > s.bound.refused {
		t.Errorf("%.2f %% refused, want at most %.1f", refused[last], s.bound.refused)
	}
	if jains[last/2] < s.jain {
		t.Errorf("Jain's fairness %.2f, want at least %.2f", jains[last/2], s.jain)
	}
}
