package bucket

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

const second = time.Second

// contending is a learner's bucket at that rate, whose gate opened at 0.
func contending(rate float64) Bucket {
	b := New(Rule{Learn: true})
	l := &b.learner
	l.phase, l.rate, l.pace, l.n, l.rtt, l.accepted = contend, rate, rate, 10, 0.005, 10
	b.slowStart = 0
	b.follow(0)
	return b
}

// refuse takes the next and refuses it.
func refuse(b *Bucket, now Instant, wait time.Duration) (next Instant) {
	now = b.Ready(now, 1)
	seq := b.Take(now, false, 100)
	b.Refused(now, seq, now, now+wait, wait, false)
	return now
}

// However little a pace says of those far behind in line, they don't go before
// those ahead of them.
func TestReadyInOrder(t *testing.T) {
	for _, rate := range []float64{0.2, 1, 50} {
		b := contending(rate)
		b.level = 0
		was := Instant(0)
		for n := range 20 {
			at := b.Ready(0, n+1)
			if at < was {
				t.Errorf("at %v/s, number %d goes at %v, the one before it at %v", rate, n+1, at, was)
			}
			was = at
		}
	}
}

// A server that refuses everything for hours measures nothing: the pace neither
// ends nor is lifted, and what follows comes at once.
func TestRefusedForHours(t *testing.T) {
	b := contending(10)
	now := Instant(0)
	for range 300 {
		now = refuse(&b, now, time.Minute)
		b.settle(now + time.Minute)
		if b.rate < slowest || math.IsNaN(b.rate) || b.rate > 10 {
			t.Fatalf("a pace of %v after %v", b.rate, now)
		}
	}
	now = b.Ready(now, 1)
	seq := b.Take(now, false, 100)
	b.Accepted(now, seq, now+second/100)
	if next := b.Ready(now, 1) - now; next < second || next > 6*second {
		t.Errorf("the next goes %v later", next)
	}
}

// An answer that takes longer than the bucket takes to fill says nothing of the
// level: what was told holds.
func TestSlowAnswers(t *testing.T) {
	b := New(Rule{Rate: 50, Burst: 100, Learn: true})
	for i := range 100 {
		first := Instant(i) * 20 * second
		seq := b.Take(first, false, 0)
		next := b.Take(first+10*second, false, 0)
		b.Accepted(first, seq, first+10*second)
		b.Accepted(first+10*second, next, first+10*second)
	}
	if e := b.Estimate(2000 * second); e.Learning != "trust" || e.Rate != 50 {
		t.Errorf("%+v", e)
	}
}

// Requests that nobody held back prove nothing of a rate.
func TestIdleGrowsNothing(t *testing.T) {
	b := contending(4)
	now := Instant(0)
	for range 100 {
		now += 10 * time.Minute
		seq := b.Take(now, false, 0)
		b.Accepted(now, seq, now+second/200)
	}
	if b.rate > 8 {
		t.Errorf("contending at %v/s after one request in ten minutes", b.rate)
	}
	b = contending(4)
	b.learner.rises(4)
	for range 10_000 {
		now += second
		seq := b.Take(now, false, 0)
		b.Accepted(now, seq, now+second/200)
	}
	if b.rate > 8 {
		t.Errorf("searching at %v/s after one request a second", b.rate)
	}
}

// A state file that is broken does not keep a bucket closed, and does not fill it.
func TestRestoreBroken(t *testing.T) {
	for _, spent := range []float64{1e15, math.NaN(), math.Inf(1), 1e300} {
		for _, rule := range []Rule{{Rate: 50, Burst: 100}, {Rate: 50, Burst: 100, Learn: true}, {Max: 300, Window: 6 * second}} {
			b := New(rule)
			b.Restore(0, spent, 0)
			if at := b.Ready(0, 1); at <= 0 || at > 10*second {
				t.Errorf("%+v, %v spent: the next goes at %v", rule, spent, at)
			}
		}
	}
}

// fitting is something that a bucket under that rule may have learned.
func fitting(of Rule) Learned {
	return Learned{Of: of, Rate: 20, Variance: 1, Level: 3, Hold: 10, Pause: 1}
}

func TestRelearnBroken(t *testing.T) {
	rule := Rule{Rate: 50, Burst: 100, Learn: true}
	for name, spoil := range map[string]func(m *Learned){
		"another rule":  func(m *Learned) { m.Of.Rate = 51 },
		"no rate":       func(m *Learned) { m.Rate = 0 },
		"NaN":           func(m *Learned) { m.Rate = math.NaN() },
		"infinite":      func(m *Learned) { m.Rate = math.Inf(1) },
		"negative":      func(m *Learned) { m.Rate = -1 },
		"as if closed":  func(m *Learned) { m.Rate = 1e-77 },
		"fast":          func(m *Learned) { m.Rate = 1e12 },
		"variance":      func(m *Learned) { m.Variance = -1 },
		"noise":         func(m *Learned) { m.Noise = math.NaN() },
		"burst":         func(m *Learned) { m.Burst = math.Inf(1) },
		"level":         func(m *Learned) { m.Level = math.NaN() },
		"debt":          func(m *Learned) { m.Level = -1e300 },
		"hold":          func(m *Learned) { m.Hold = math.Inf(1) },
		"pause":         func(m *Learned) { m.Pause = -1 },
		"half a window": func(m *Learned) { m.Quota = 3 },
		"no quota":      func(m *Learned) { m.Width = second },
		"quota":         func(m *Learned) { m.Quota, m.Width = -3, second },
		"huge quota":    func(m *Learned) { m.Quota, m.Width = math.MaxInt, second },
		"huge window":   func(m *Learned) { m.Quota, m.Width = 3, math.MaxInt64 },
		"kind":          func(m *Learned) { m.Quota, m.Width, m.Kind = 3, second, 99 },
	} {
		b, fresh := New(rule), New(rule)
		m := fitting(rule)
		spoil(&m)
		b.Relearn(0, m, 0)
		if e := b.Estimate(0); e != fresh.Estimate(0) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	b := New(rule)
	b.Relearn(0, fitting(rule), 0)
	if e := b.Estimate(0); e.Rate != 20 {
		t.Errorf("what is right was not learned: %+v", e)
	}
	b = New(Rule{Rate: 50, Burst: 100})
	b.Relearn(0, fitting(Rule{Rate: 50, Burst: 100}), 0)
	if e := b.Estimate(0); e.Rate != 50 {
		t.Errorf("with learning off it learned: %+v", e)
	}
}

// A Retry-After as long as can be does not overflow into a window's end that is
// over.
func TestEndlessRetryAfter(t *testing.T) {
	b := New(Rule{Learn: true})
	for i := range 50 {
		now := Instant(i) * second / 100
		b.Accepted(now, b.Take(now, false, 10), now+second/200)
	}
	seq := b.Take(second, false, 10)
	b.Refused(second, seq, second, 2*second, math.MaxInt64, false)
	b.settle(2 * second)
	if e := b.Estimate(2 * second); e.Window < 0 || e.Burst < 0 || e.Rate < 0 {
		t.Errorf("%+v", e)
	}
	if m, ok := b.Learned(2 * second); !ok || !m.Valid() {
		t.Errorf("%+v, %v", m, ok)
	}
}

// What was learned survives a restart as it was, but never more than the time in
// between is refilled.
func TestRelearnRoundTrip(t *testing.T) {
	rules := map[string]Rule{
		"nothing": {Learn: true},
		"told":    {Rate: 80, Burst: 100, Learn: true},
		"window":  {Max: 300, Window: 6 * second, Learn: true},
	}
	for name, rule := range rules {
		b := New(rule)
		now := Instant(0)
		for i := range 2000 {
			now = b.Ready(now, 1)
			seq := b.Take(now, false, 100)
			if i%400 == 399 {
				b.Refused(now, seq, now, now+second, second, false)
				continue
			}
			b.Accepted(now, seq, now+second/200)
			m, ok := b.Learned(now)
			if !ok {
				continue
			}
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var read Learned
			if err := json.Unmarshal(text, &read); err != nil || read != m {
				t.Fatalf("%s: %v: %+v, want %+v", name, err, read, m)
			}
			for _, age := range []time.Duration{0, second, time.Hour} {
				again := New(rule)
				again.Restore(now, b.Spent(now), age)
				again.Relearn(now, read, age)
				was, is := b.Estimate(now), again.Estimate(now)
				if was.Learning == "search" { // it begins lower
					was.Rate = max(slowest, was.Rate/2)
				}
				if is.Rate != was.Rate || is.Window != was.Window || is.Algorithm != was.Algorithm {
					t.Fatalf("%s: %+v, want %+v", name, is, was)
				}
				if m.Quota > 0 {
					continue // its level is its log
				}
				gained := m.Rate * age.Seconds()
				if is.Level > was.Level+gained+epsilon {
					t.Fatalf("%s: a level of %v, %v after one of %v", name, is.Level, age, was.Level)
				}
				if x := again.learner.x; x > m.Level+gained+epsilon {
					t.Fatalf("%s: the model has %v, %v after %v", name, x, age, m.Level)
				}
				if again.level > max(0, m.Level+gained)+epsilon {
					t.Fatalf("%s: %v go at once, %v after a level of %v", name, again.level, age, m.Level)
				}
			}
		}
		if m, ok := b.Learned(now); !ok {
			t.Errorf("%s: learned nothing: %+v", name, m)
		}
	}
}

// A ceiling holds in every phase, for the burst, after a gate and after a restart.
func TestCeiling(t *testing.T) {
	const ceiling = 40
	apart := Instant(1e9 / ceiling)
	for name, rule := range map[string]Rule{
		"nothing":      {Learn: true},
		"told":         {Rate: 100, Burst: 500, Learn: true},
		"window":       {Max: 300, Window: 6 * second, Learn: true},
		"not bounded":  {Learn: true, Open: true},
		"told slower":  {Rate: 30, Burst: 10, Learn: true},
		"small window": {Max: 5, Window: 3 * second, Learn: true},
	} {
		rule.Ceiling = ceiling
		seen := map[string]bool{}
		b := New(rule)
		last := -apart
		now := Instant(0)
		took := 0
		for i := range 20_000 {
			now = b.Ready(now, 1)
			if now-last < apart {
				t.Fatalf("%s, %s: %v after the one before", name, b.Estimate(now).Learning, now-last)
			}
			last = now
			took++
			seq := b.Take(now, i%2 == 0, 100)
			b.Left(now, now)
			seen[b.Estimate(now).Learning] = true
			switch {
			case i%977 == 976: // rare, then in a row
				b.Refused(now, seq, now, now+second, second, false)
			case i > 10_000 && i < 10_040:
				b.Refused(now, seq, now, now+second/4, second/4, false)
			default:
				b.Accepted(now, seq, now)
			}
		}
		if rate := float64(took) / now.Seconds(); rate > ceiling {
			t.Errorf("%s: %v/s on average", name, rate)
		}
		t.Logf("%s: %v", name, seen)
	}
}

// A rate that was told far below what is tried otherwise grows step by step, too.
func TestSlowRatesGrowSlowly(t *testing.T) {
	for _, rate := range []float64{0.01, 0.05, 0.1} {
		for _, phase := range []phase{search, contend} {
			b := contending(rate)
			b.learner.phase = phase
			now := Instant(0)
			for range 3 {
				now = b.Ready(now, 1)
				b.Take(now, false, 100)
			}
			if b.rate > 20 {
				t.Errorf("%s: from %v/s to %v/s in three requests", phaseWords[phase], rate, b.rate)
			}
		}
	}
}

// A debt from before a restart is no proof of a rate if the first is refused.
func TestDebtMeasuresNothing(t *testing.T) {
	b := New(Rule{Rate: 50, Burst: 10, Learn: true})
	b.Restore(0, 100, 0)
	seq := b.Take(1, false, 100)
	b.Refused(1, seq, 1, second, second, false)
	b.settle(second)
	if b.rate > 60 {
		t.Errorf("%v/s after a debt of 90: %+v", b.rate, b.Estimate(second))
	}
}

// What was used of a window that was learned is not there again after a restart.
func TestRestartRefillsNoWindow(t *testing.T) {
	rule := Rule{Learn: true}
	b := New(rule)
	b.Relearn(0, Learned{Of: rule, Rate: 50, Variance: 1, Quota: 300, Width: 6 * second, Level: 300, Hold: 1, Pause: 1, Sure: true}, 0)
	for range 250 {
		b.accept(0)
	}
	m, ok := b.Learned(second)
	if !ok || m.Used != 250 {
		t.Fatalf("%+v, %v", m, ok)
	}
	for age, want := range map[time.Duration]float64{0: 50, 2 * second: 50, time.Minute: 300} {
		again := New(rule)
		again.Restore(second, b.Spent(second), age)
		again.Relearn(second, m, age)
		if e := again.Estimate(second); e.Level != want {
			t.Errorf("%v later: %v of the quota are there, want %v", age, e.Level, want)
		}
	}
}
