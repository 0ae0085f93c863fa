package bucket

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"
)

// script is what drives a bucket: bytes that are read as decisions.
type script []byte

func (s *script) byte() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

func (s *script) pick(n int) int { return int(s.byte()) % n }

// float is any number, NaN and infinities too.
func (s *script) float() float64 {
	var b [8]byte
	*s = (*s)[copy(b[:], *s):]
	return math.Float64frombits(binary.BigEndian.Uint64(b[:]))
}

var (
	rates    = []float64{50, 5, 0.01, 1e6, 0.5, 1000, 20, 3}
	bursts   = []float64{100, 1, 10, 1000, 5, 1e6, 60, 2.5}
	maxima   = []int{300, 1, 2, 3, 4, 60, 1000, 10_000}
	widths   = []time.Duration{6 * time.Second, time.Minute, time.Second, time.Millisecond, 10 * time.Millisecond, 24 * time.Hour, 2 * time.Second, 3 * time.Second}
	gaps     = []time.Duration{5 * time.Millisecond, 0, 1, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Hour, 31 * 24 * time.Hour}
	waits    = []time.Duration{time.Second, 0, 1, 50 * time.Millisecond, 6 * time.Second, 30 * time.Second, 31 * 24 * time.Hour, math.MaxInt64}
	ceilings = []float64{0, 0, 0, 0, 40, 1, 0.1, 1e6}
)

// rule is one that the front lets pass.
func (s *script) rule() (r Rule) {
	r.Learn = s.pick(8) != 7
	switch s.pick(4) {
	case 0:
	case 1:
		r.Rate, r.Burst = rates[s.pick(8)], bursts[s.pick(8)]
	case 2:
		r.Max, r.Window = maxima[s.pick(8)], widths[s.pick(8)]
	case 3:
		r.Open = r.Learn
	}
	if r.Learn {
		r.Ceiling = ceilings[s.pick(8)]
	}
	return r
}

// learned is anything that a file may hold.
func (s *script) learned(of Rule) Learned {
	m := Learned{
		Of: of, Rate: s.float(), Variance: s.float(), Noise: s.float(), Burst: s.float(), Told: s.pick(2) == 1,
		Level: s.float(), Hold: s.float(), Pause: s.float(),
	}
	if s.pick(2) == 1 {
		m.Quota, m.Width, m.Sure, m.Kind = int(int8(s.byte())), widths[s.pick(8)], s.pick(2) == 1, Algorithm(s.pick(6))
	}
	return m
}

type onWay struct {
	taken Instant
	seq   uint64
}

// driven is a bucket with what is on the way.
type driven struct {
	t    *testing.T
	b    Bucket
	now  Instant
	last Instant // the latest request
	out  []onWay
}

func (d *driven) take(hold bool, waiting int) {
	if c := d.b.rule.Ceiling; c > 0 && d.last > 0 && float64(d.now-d.last) < 0.999e9/c {
		d.t.Fatalf("%v after the one before, over a ceiling of %v/s", d.now-d.last, c)
	}
	d.last = d.now
	seq := d.b.Take(d.now, hold, waiting)
	d.out = append(d.out, onWay{d.now, seq})
}

// any takes one that is on the way, not only the first.
func (d *driven) any(s *script) (p onWay, ok bool) {
	if len(d.out) == 0 {
		return p, false
	}
	i := s.pick(len(d.out))
	p = d.out[i]
	d.out = slices.Delete(d.out, i, i+1)
	return p, true
}

// step is one event.
func (d *driven) step(s *script) {
	op := s.pick(16)
	switch op {
	case 0, 1: // the next, when it is its turn
		at := d.b.Ready(d.now, 1)
		if at > d.now+math.MaxInt64/4 || at > math.MaxInt64/2 {
			return
		}
		d.now = at
		d.take(op == 1, s.pick(256))
	case 2: // many
		for range 1 + s.pick(64) {
			at := d.b.Ready(d.now, 1)
			if at > d.now+time.Hour {
				return
			}
			d.now = at
			d.take(false, 200)
		}
	case 3:
		if p, ok := d.any(s); ok {
			d.b.Accepted(p.taken, p.seq, d.now)
		}
	case 4: // all
		for _, p := range d.out {
			d.b.Accepted(p.taken, p.seq, d.now)
		}
		d.out = nil
	case 5, 6:
		if p, ok := d.any(s); ok {
			wait := waits[s.pick(8)]
			asked := wait
			if op == 6 {
				wait, _ = d.b.Missing(p.taken)
				asked = 0
			}
			d.b.Refused(p.taken, p.seq, d.now, saturated(d.now, wait), asked, false)
		}
	case 7: // all that left
		wait := waits[s.pick(6)]
		for _, p := range d.out {
			d.b.Refused(p.taken, p.seq, d.now, d.now+wait, wait, false)
		}
		d.out = nil
	case 8:
		if p, ok := d.any(s); ok {
			d.b.Refused(p.taken, p.seq, d.now, saturated(d.now, waits[s.pick(8)]), 0, true)
		}
	case 9:
		if p, ok := d.any(s); ok {
			switch p.seq % 3 {
			case 0:
				d.b.Unanswered(p.taken, p.seq)
			case 1:
				d.b.Missed(p.taken, p.seq)
			case 2:
				d.b.Abandoned(p.taken)
			}
		}
	case 10:
		if p, ok := d.any(s); ok {
			d.b.Return(p.taken, p.seq, d.now)
		}
	case 11:
		if len(d.out) > 0 {
			d.b.Left(d.out[s.pick(len(d.out))].taken, d.now)
		}
	case 12:
		if gap := gaps[s.pick(8)]; d.now < math.MaxInt64/2-gap {
			d.now += gap
		}
	case 13: // a refusal of one that nobody had taken from this bucket
		d.b.Refused(d.now, 0, d.now, saturated(d.now, waits[s.pick(8)]), 0, s.pick(2) == 1)
	case 14: // a restart
		m, ok := d.b.Learned(d.now)
		spent, probing := d.b.Spent(d.now), d.b.Probing()
		text, err := json.Marshal(m)
		if err != nil || ok && !m.Valid() {
			d.t.Fatalf("%v: %+v", err, m)
		}
		d.restart()
		d.b.Restore(d.now, spent, gaps[s.pick(8)])
		if ok {
			_ = json.Unmarshal(text, &m)
			d.b.Relearn(d.now, m, gaps[s.pick(8)])
		}
		if probing {
			d.b.Probe()
		}
	case 15: // and one from somebody else's file
		d.restart()
		d.b.Restore(d.now, s.float(), gaps[s.pick(8)])
		d.b.Relearn(d.now, s.learned(d.b.rule), gaps[s.pick(8)])
	}
}

func (d *driven) restart() {
	d.b, d.out, d.last = New(d.b.rule), nil, 0
}

func saturated(now Instant, wait time.Duration) Instant {
	if wait > Never-now {
		return Never
	}
	return now + wait
}

// check asserts what must always be so.
func (d *driven) check() {
	b, t := &d.b, d.t
	e := b.Estimate(d.now)
	l := &b.learner
	for name, f := range map[string]float64{
		"rate": b.rate, "level": b.level, "full": b.full, "learner.rate": l.rate, "variance": l.variance, "noise": l.noise,
		"x": l.x, "anchor.level": l.anchor.level, "anchor.variance": l.anchor.variance, "gained": l.anchor.gained,
		"pause": l.pause, "hold": l.hold, "creep": l.creep, "rtt": l.rtt, "backlog": l.backlog, "pace": l.pace,
		"Rate": e.Rate, "RateSure": e.RateSure, "Burst": e.Burst, "BurstSure": e.BurstSure, "AlgorithmSure": e.AlgorithmSure,
		"Level": e.Level, "Pace": e.Pace, "Spent": b.Spent(d.now),
	} {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			t.Fatalf("%s is %v: %+v", name, f, *b)
		}
	}
	if !(l.burst > 0) && l.phase != off && l.phase != windows {
		t.Fatalf("a burst of %v", l.burst)
	}
	for _, sure := range []float64{e.RateSure, e.BurstSure, e.AlgorithmSure} {
		if sure < 0 || sure > 1 {
			t.Fatalf("sure %v: %+v", sure, e)
		}
	}
	was := d.now
	for _, n := range []int{1, 2, 3, 10, 200, 10_000} {
		at := b.Ready(d.now, n)
		if at < was {
			t.Fatalf("the %d-th goes at %v, one before it at %v, now %v: %+v", n, at, was, d.now, *b)
		}
		was = at
	}
	at := b.Ready(d.now, 1)
	gate, closed := b.Gate(d.now)
	if closed && at < gate {
		t.Fatalf("ready at %v, before the gate at %v", at, gate)
	}
	if bound := d.bound(); at > saturated(max(d.now, gate), bound) {
		t.Fatalf("the next goes %v after the gate, want %v at most: %+v", at-max(d.now, gate), bound, *b)
	}
}

// bound is how long the next request waits at the most when no gate is closed: a
// bucket is never kept to less than half of the slowest rate that is tried, or of
// a twentieth of what was told; at most one window; and a probe's patience.
func (d *driven) bound() time.Duration {
	b := &d.b
	bound := probePatience + holdRefill
	if b.max > 0 {
		bound += b.window + WireJitter
	}
	if b.rate > 0 {
		if b.rate < d.slowest() {
			d.t.Fatalf("a rate of %v, want %v at least: %+v", b.rate, d.slowest(), *b)
		}
		bound += time.Duration(math.Min((1+max(0, -b.level))/b.rate*1e9+1, math.MaxInt64/4))
	}
	if c := b.rule.Ceiling; c > 0 {
		bound += time.Duration(1e9/c) + 1
	}
	return bound
}

// slowest is the lowest rate that the pace may have: half of it is surplus that is
// owed, a tenth of the rest is caution.
func (d *driven) slowest() float64 {
	told := d.b.rule.PerSecond()
	if told == 0 {
		told = lowest
	}
	return 0.45 * min(lowest, told)
}

func FuzzBucket(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		s := script(text)
		d := driven{t: t, b: New(s.rule())}
		d.check()
		for len(s) > 0 {
			d.step(&s)
			d.check()
		}
	})
}
