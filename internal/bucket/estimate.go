package bucket

import (
	"math"
	"time"
)

// Algorithm is how a server counts.
type Algorithm uint8

const (
	// Unknown: nothing has told yet.
	Unknown Algorithm = iota
	// TokenBucket refills continuously.
	TokenBucket
	// Window: so many in a window, fixed or sliding.
	Window
	// FixedWindow opens at the first request and closes when it is over.
	FixedWindow
	// SlidingWindow looks back from each request.
	SlidingWindow
)

// Estimate is what is believed of a limit, and how surely. Sureness is from 0,
// a guess, to 1.
type Estimate struct {
	Algorithm     Algorithm
	AlgorithmSure float64
	// Rate is what the limit leaves to this client, in requests a second.
	Rate, RateSure float64
	// Burst is what the full bucket holds, or Max of the window; 0 if that
	// is not known.
	Burst, BurstSure float64
	Window           time.Duration
	// Level is how many could go now.
	Level float64
	// Pace is at what rate requests are sent now, 0 if it is not a rate
	// that holds them back.
	Pace float64
	// Learning is what the learner is at: one word, "off" without one.
	Learning string
}

// Estimate returns what is believed at now.
func (b *Bucket) Estimate(now Instant) Estimate {
	l := &b.learner
	e := Estimate{Learning: phaseWords[l.phase], Rate: l.rate, RateSure: l.sure(), Pace: b.rate, Level: max(0, l.levelAt(now))}
	switch l.phase {
	case off:
		return b.toldEstimate(now)
	case ramp:
		return Estimate{Learning: e.Learning}
	case windows:
		w := &l.window
		e.Algorithm, e.Window, e.Burst = Window, w.width, float64(w.quota)
		if w.kind != Unknown {
			e.Algorithm = w.kind
		}
		e.RateSure, e.BurstSure, e.AlgorithmSure = 0.5, 0.5, 0.5
		if w.sure {
			e.RateSure, e.BurstSure, e.AlgorithmSure = 0.9, 0.9, 0.9
		}
		e.Level = max(0, float64(b.max)-b.Spent(now))
		e.Pace = 0
	default:
		e.Algorithm, e.AlgorithmSure = TokenBucket, 0.5+l.sure()/2
		if l.burst < math.Inf(1) {
			e.Burst, e.BurstSure = l.burst, 0.5
		} else if c := l.capacity(l.rate); c >= 1 && l.phase == track {
			e.Burst, e.BurstSure = c, l.sure()/2
		}
		if l.told && l.phase == trust {
			e.AlgorithmSure, e.BurstSure = 0.5, 0.5
		}
	}
	return e
}

// toldEstimate is that of a bucket that does not learn.
func (b *Bucket) toldEstimate(now Instant) Estimate {
	e := Estimate{Learning: phaseWords[off]}
	switch r := b.rule; {
	case r.Max > 0:
		e.Algorithm, e.Window, e.Burst = Window, r.Window, float64(r.Max)
		e.Rate = e.Burst / r.Window.Seconds()
		e.Level = max(0, e.Burst-b.Spent(now))
	case r.Rate > 0:
		e.Algorithm, e.Rate, e.Burst, e.Pace = TokenBucket, r.Rate, r.Burst, r.Rate
		e.Level = max(0, b.levelAt(now))
	}
	return e
}

// levelAt is level without noting it.
func (l *learner) levelAt(now Instant) float64 {
	x := l.x + l.rate*max(0, (now-l.xAt).Seconds())
	return min(x, l.most())
}

// Learned is what outlives a process.
type Learned struct {
	// Of is what was told: another rule begins anew.
	Of       Rule          `json:"of"`
	Rate     float64       `json:"rate"`
	Variance float64       `json:"variance"`
	Noise    float64       `json:"noise,omitempty"`
	Burst    float64       `json:"burst,omitempty"`
	Told     bool          `json:"told,omitempty"` // the told rate was not contradicted
	Level    float64       `json:"level"`
	Hold     float64       `json:"hold"`
	Pause    float64       `json:"pause"`
	Contends bool          `json:"contends,omitempty"`
	Quota    int           `json:"quota,omitempty"`
	Width    time.Duration `json:"width,omitempty"`
	Sure     bool          `json:"sure,omitempty"`
	Kind     Algorithm     `json:"kind,omitempty"`
	// How many requests had gone within a width, and how long before the
	// first and the last of them.
	Used        int           `json:"used,omitempty"`
	First, Last time.Duration `json:",omitempty"`
	// How many of them in the window that was open, and how long before it had
	// begun.
	In     int           `json:"in,omitempty"`
	Opened time.Duration `json:"opened,omitempty"`
}

// maxQuota is the largest window that is taken over from a file.
const maxQuota = 1_000_000

// Valid reports whether l can be what a learner has learned: it comes from a
// file.
func (l Learned) Valid() bool {
	for _, f := range []float64{l.Variance, l.Noise, l.Burst, l.Hold, l.Pause} {
		if !(f >= 0 && f < 1e15) {
			return false
		}
	}
	least := lowest // a slower one would be as good as closed
	if told := l.Of.PerSecond(); told > 0 {
		least = min(least, told)
	}
	window := l.Quota > 0 && l.Width > 0
	return (l.Rate >= least || window && l.Rate > 0) && l.Rate < 1e9 && math.Abs(l.Level) < 1e15 &&
		l.Quota >= 0 && l.Quota <= maxQuota && l.Width >= 0 && l.Width <= max(2*longestWait, l.Of.Window) &&
		window == (l.Quota > 0 || l.Width > 0) && l.Kind <= SlidingWindow &&
		l.Used >= 0 && l.Used <= l.Quota && l.Last >= 0 && l.First >= l.Last && l.First <= 2*l.Width &&
		l.In >= 0 && l.In <= l.Quota && l.Opened >= 0 && l.Opened <= 2*l.Width
}

// Learned returns what was learned; ok is false if that is nothing yet.
func (b *Bucket) Learned(now Instant) (m Learned, ok bool) {
	l := &b.learner
	switch l.phase {
	case off, ramp, trust:
		return Learned{}, false
	}
	m = Learned{
		Of:   b.rule,
		Rate: l.rate, Variance: l.variance, Noise: l.noise, Told: l.told, Level: l.levelAt(now),
		Hold: l.hold, Pause: l.pause,
	}
	if l.burst < math.Inf(1) {
		m.Burst = l.burst
	}
	switch l.phase {
	case windows:
		w := &l.window
		m.Quota, m.Width, m.Sure, m.Kind = w.quota, w.width, w.sure, w.kind
		if m.Used = int(b.Spent(now)); m.Used > 0 {
			m.First, m.Last = now-b.log.at(b.log.n-m.Used), now-b.log.at(b.log.n-1)
		}
		if !w.over(now) {
			m.In, m.Opened = min(w.used, w.quota), now-w.start
		}
	case search: // in the midst of finding out
		m.Variance = max(m.Variance, square(m.Rate/2))
	case contend:
		m.Contends = true
	}
	return m, true
}

// Relearn makes a new bucket that learns go on from what another had learned,
// age ago. Nothing is refilled but what the time since then has. It reports
// whether m can be made use of: it was learned of the same rule.
func (b *Bucket) Relearn(now Instant, m Learned, age time.Duration) bool {
	if !b.rule.Learn || !m.Valid() || m.Of != b.rule {
		return false
	}
	l := newLearner(Rule{Learn: true})
	l.told = m.Told
	l.rate, l.noise = m.Rate, m.Noise
	// A day makes it as unsure as a tenth of the rate.
	l.variance = m.Variance + square(0.1*m.Rate)*min(1, age.Hours()/24)
	l.hold, l.pause = max(1, m.Hold), max(0.05, m.Pause)
	if m.Burst > 0 {
		l.burst, l.given = m.Burst, m.Burst
	}
	l.last, l.opened = now, now
	if m.Quota > 0 {
		l.phase = windows
		l.window = window{quota: m.Quota, width: m.Width, sure: m.Sure, kind: m.Kind}
		b.learner = l
		b.max, b.window, b.log = m.Quota, m.Width, ring{}
		for i := range m.Used {
			b.log.push(now-age-m.First+Instant(float64(m.First-m.Last)*float64(i)/float64(m.Used)), m.Quota)
		}
		w := &b.learner.window
		w.start, w.used, w.most = now-age-m.Opened, m.In, m.Quota
		return true
	}
	l.phase = track
	l.x, l.xAt = min(m.Level, 0)+min(max(m.Level, 0)+m.Rate*age.Seconds(), l.most()), now
	l.anchor = anchor{at: now, level: l.x, variance: 1 + square(l.x/2)}
	switch {
	case m.Contends:
		l.phase = contend
	case l.sure() == 0: // it was still looking
		l.phase, l.rate = search, max(slowest, l.rate/2)
		l.anchor.known = false
	}
	l.pace = l.rate
	b.learner = l
	b.slowStart = 0
	b.rate, b.level, b.at, b.full = l.rate, min(1, max(l.x, 0)), now, 1
	return true
}
