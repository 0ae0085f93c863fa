package simulate

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/bucket"
)

// batch is n calls at once, of one client of a policy.
func batch(p Policy, l Limit, n int) Config {
	c := Config{Limits: []Limit{l}, Clients: []Client{{Policy: p, N: n, Spread: 0.1}}}
	if p == Paced {
		c.Clients[0].Rules = []bucket.Rule{{Rate: l.Rate, Burst: l.Burst, Max: l.Max, Window: l.Window, Learn: true}}
	}
	return c
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*want) {
		t.Errorf("%s is %v, want %v within %.1f %%", what, got, want, 100*tolerance)
	}
}

// What is there at once drains as the limit's arithmetic says.
func TestDrain(t *testing.T) {
	bucket50 := Limit{Rate: 50, Burst: 100}
	window := Limit{Max: 300, Window: time.Minute}
	fixed, sliding := window, window
	fixed.Algorithm, sliding.Algorithm = Fixed, Sliding
	for _, test := range []struct {
		name    string
		limit   Limit
		n       int
		seconds float64
	}{
		{"bucket", bucket50, 1000, 18},
		{"within the burst", bucket50, 100, 0},
		{"slow bucket", Limit{Rate: 0.5, Burst: 1}, 11, 20},
		{"fixed window", fixed, 1200, 180},
		{"fixed window and one more", fixed, 1201, 240},
		{"sliding window", sliding, 1201, 240},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Run(batch(Best, test.limit, test.n))
			if got := r.Span.Seconds(); math.Abs(got-test.seconds) > 1e-6*(1+test.seconds) || r.Accepted != test.n || r.Refused > 0 {
				t.Errorf("%v s with %d accepted and %d refused, want %v s", got, r.Accepted, r.Refused, test.seconds)
			}
			if test.seconds > 0 && (r.Backlog.At != 0 || r.Backlog.Gone != r.Span) {
				t.Errorf("backlog %+v", r.Backlog)
			}
		})
	}
	r := Run(batch(Paced, bucket50, 1000))
	near(t, "the pace", r.Span.Seconds(), 18, 0.01)
}

// A bucket that holds one is a server with a constant time of service, and its
// queue is M/D/1: a mean wait of ρ/(2μ(1−ρ)).
func TestWaitsOfMD1(t *testing.T) {
	const mu, n = 10, 200_000
	for _, rho := range []float64{0.5, 0.8} {
		rng := rand.New(rand.NewPCG(1, 2))
		at, left := 0.0, n
		c := batch(Best, Limit{Rate: mu, Burst: 1}, 0)
		c.Until = Never
		c.Arrivals = func() (Arrival, bool) {
			at += rng.ExpFloat64() / (rho * mu)
			left--
			return Arrival{At: time.Duration(at * 1e9), Count: 1}, left >= 0
		}
		r := Run(c)
		waits := &r.Waits[0]
		if waits.N() != n {
			t.Fatalf("%d waits", waits.N())
		}
		near(t, "the mean wait", waits.Mean().Seconds(), rho/(2*mu*(1-rho)), 0.03)
		// The bucket is full for the share 1-ρ of the time, and has no
		// room for the rest.
		near(t, "the share of time in which it is empty", r.Limits[0].Empty, rho, 0.01)
	}
}

// Each call ends in one way, whoever made it, and each answer is in a slot.
func TestNothingGetsLost(t *testing.T) {
	for _, policy := range []Policy{Paced, Loop, Best} {
		for seed := range uint64(5) {
			c := batch(policy, Limit{Rate: 20, Burst: 10, Others: []Traffic{{PerSecond: 5, Poisson: true}}}, 700)
			c.Clients = append(c.Clients, c.Clients[0])
			c.Clients[0].Callers = 30
			c.Seed = seed
			c.Service, c.ServiceJitter, c.OneWayJitter = 100*ms, 50*ms, ms
			c.Outages = []Outage{{10 * time.Second, 15 * time.Second}}
			c.Timeline = true
			for i := range 100 {
				if i%2 == 0 {
					c.Limits[0].Changes = append(c.Limits[0].Changes, Change{time.Duration(i) * time.Second, 20, 10})
				}
			}
			r := Run(c)
			again := Run(c)
			if !reflect.DeepEqual(r, again) {
				t.Fatalf("policy %d, seed %d: the second run differs", policy, seed)
			}
			var sum Slot
			for i := range r.Timeline.Slots {
				sum.add(&r.Timeline.Slots[i])
			}
			waits := int(r.Waits[0].N())
			if r.Arrived != 1400 || r.Accepted+r.Lost != 1400 || waits != r.Accepted || r.Early > 0 && policy != Loop || r.Lost > 0 && policy != Loop {
				t.Errorf("policy %d, seed %d: %d arrived, %d accepted, %d lost, %d waits, %d early", policy, seed, r.Arrived, r.Accepted, r.Lost, waits, r.Early)
			}
			if sum.Arrived != r.Arrived || sum.Accepted != r.Accepted || sum.Answered != r.Accepted || sum.Refused != r.Refused+r.Failed || sum.Lost != r.Lost || sum.Backlog != r.Backlog.Peak {
				t.Errorf("policy %d, seed %d: the timeline has %+v of %+v", policy, seed, sum, r.Backlog)
			}
			near(t, "the level in the timeline", sum.Level[0]/r.End.Seconds(), r.Limits[0].Level, 1e-6)
			if policy == Loop && (r.Lost == 0 || r.Refused == 0) {
				t.Error("a loop that loses nothing")
			}
		}
	}
}

// Two buckets of a limit that counts per credential are twice the limit.
func TestTwoCredentials(t *testing.T) {
	l := Limit{Rate: 50, Burst: 100}
	c := batch(Paced, l, 0)
	c.Limits = []Limit{l, l}
	c.Clients = append(c.Clients, c.Clients[0])
	c.Clients[0].Limits, c.Clients[1].Limits = []int{0}, []int{1}
	sent := false
	c.Arrivals = func() (Arrival, bool) {
		defer func() { sent = true }()
		return Arrival{Count: 2000}, !sent
	}
	r := Run(c)
	near(t, "the span", r.Span.Seconds(), 18, 0.01)
	if r.Clients[0].Accepted != 1000 || r.Clients[1].Accepted != 1000 {
		t.Errorf("%d and %d", r.Clients[0].Accepted, r.Clients[1].Accepted)
	}
}

// The more urgent class goes first, although it came last.
func TestClasses(t *testing.T) {
	c := batch(Best, Limit{Rate: 10, Burst: 1}, 0)
	calls := []Arrival{{0, 100, 5}, {0, 100, 3}, {time.Second, 10, 0}}
	c.Arrivals = func() (a Arrival, ok bool) {
		if len(calls) == 0 {
			return a, false
		}
		a, calls = calls[0], calls[1:]
		return a, true
	}
	r := Run(c)
	for class, want := range map[int]time.Duration{0: 900 * ms, 3: 10900 * ms, 5: 20900 * ms} {
		near(t, "the longest wait", r.Waits[class].Max().Seconds(), want.Seconds(), 0.011)
	}
}

func TestOthersComeAndGo(t *testing.T) {
	c := batch(Best, Limit{Rate: 50, Burst: 100, Others: []Traffic{{From: 60 * time.Second, On: 10 * time.Second, Off: 30 * time.Second, PerSecond: 20}}}, 1)
	c.Horizon = 460 * time.Second
	r := Run(c)
	near(t, "what others took", float64(r.Others), 10*10*20, 0.01)
}

func TestLevel(t *testing.T) {
	c := batch(Best, Limit{Rate: 1, Burst: 100}, 100)
	c.Horizon = 200 * time.Second
	r := Run(c)
	// Empty at first, full after 100 s.
	near(t, "the level", r.Limits[0].Level, 0.75, 1e-6)
	near(t, "the time without a token", r.Limits[0].Empty, 1.0/200, 1e-6)
	c = batch(Best, Limit{Algorithm: Sliding, Max: 10, Window: 10 * time.Second}, 10)
	c.Horizon = 40 * time.Second
	r = Run(c)
	near(t, "the level of a window", r.Limits[0].Level, 0.75, 1e-6)
	near(t, "the time without room", r.Limits[0].Empty, 0.25, 1e-6)
}

func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h, part Histogram
		all := rapid.SliceOfN(rapid.Int64Range(0, math.MaxInt64/2), 1, 200).Draw(t, "durations")
		for i, d := range all {
			if i%3 == 0 {
				part.Add(time.Duration(d))
			} else {
				h.Add(time.Duration(d))
			}
		}
		h.Merge(&part)
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			exact := all[max(0, int(math.Ceil(q*float64(len(all))))-1)]
			got := int64(h.Quantile(q))
			if got < exact || float64(got) > float64(exact)*(1+1.0/128)+1 {
				t.Fatalf("the quantile %v is %d, want %d", q, got, exact)
			}
		}
		if int64(h.Max()) != all[len(all)-1] {
			t.Fatalf("the longest is %d", h.Max())
		}
	})
}

func TestLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l line
		var model, out []time.Duration
		now := time.Duration(0)
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				now += time.Duration(rapid.IntRange(0, 2).Draw(t, "later"))
				n := rapid.IntRange(0, 3).Draw(t, "count")
				l.push(now, n)
				for range n {
					model = append(model, now)
				}
			case 1, 2:
				if len(model) > 0 {
					if got := l.pop(); got != model[0] {
						t.Fatalf("%d came out, want %d", got, model[0])
					}
					out = append(out, model[0])
					model = model[1:]
				}
			case 3:
				if len(out) > 0 {
					i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
					l.back(out[i])
					at, _ := slices.BinarySearch(model, out[i])
					model = slices.Insert(model, at, out[i])
					out = slices.Delete(out, i, i+1)
				}
			}
		}
		for _, want := range model {
			if got := l.pop(); got != want {
				t.Fatalf("%d came out, want %d", got, want)
			}
		}
		if l.n != 0 {
			t.Fatalf("%d groups are left", l.n)
		}
	})
}

// A call costs about a microsecond and allocates nothing.
func BenchmarkCall(b *testing.B) {
	for name, policy := range map[string]Policy{"paced": Paced, "loop": Loop, "best": Best} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			c := batch(policy, Limit{Rate: 150, Burst: 300}, 0)
			c.Until, c.Service, c.ServiceJitter = Never, 200*ms, 50*ms
			rng := rand.New(rand.NewPCG(1, 2))
			at, left := 0.0, b.N
			c.Arrivals = func() (Arrival, bool) {
				at += rng.ExpFloat64() / 140
				left--
				return Arrival{At: time.Duration(at * 1e9), Count: 1}, left >= 0
			}
			c.Timeline = true
			b.ResetTimer()
			if r := Run(c); r.Arrived != b.N {
				b.Fatal(r.Arrived)
			}
		})
	}
}

// A day of ten million calls, for one row of the table.
func BenchmarkDayOfTenMillion(b *testing.B) {
	from, to, _ := ParseHours("09:00-11:00")
	p := Workday(10_000_000, from, to, 0.5)
	p.Zone, p.Date = time.UTC, date("2026-01-15")
	d, err := p.On()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := Scenario{
			Arrivals: func() Source { return d.Source(1) }, Start: d.Start, Horizon: 24 * time.Hour,
			Limits:  []ScenarioLimit{{Limit: Limit{Rate: 200, Burst: 400}}},
			Latency: 200 * ms, Jitter: 50 * ms, Credentials: 1, Clients: 1, Callers: 200,
		}
		r := s.run(b.Context(), Variant{Way: Ways()[1]}, nil)
		if r.Accepted != r.Arrived || r.Arrived < 9_900_000 {
			b.Fatalf("%d of %d", r.Accepted, r.Arrived)
		}
	}
}
