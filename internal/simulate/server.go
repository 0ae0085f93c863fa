package simulate

import (
	"math"
	"math/rand/v2"
	"time"
)

// Algorithm is how a limit of the server counts.
type Algorithm int

const (
	// Bucket refills continuously.
	Bucket Algorithm = iota
	// Fixed is a window that opens at the first request it accepts and
	// closes Window later.
	Fixed
	// Sliding allows at most Max in any Window.
	Sliding
)

// Limit is one limit of the server, shared by all clients.
type Limit struct {
	Algorithm Algorithm
	// Rate and Burst size a Bucket, which starts full.
	Rate, Burst float64
	// Max and Window size a Fixed or a Sliding window.
	Max    int
	Window time.Duration
	// Phase makes the windows of a Fixed limit follow each other by the clock,
	// whoever sends when: one is Phase old at the start. Zero: a window opens
	// with a request.
	Phase time.Duration
	// Changes give a Bucket another rate and burst, in order of time.
	Changes []Change
	// Others is traffic of somebody else, who does not retry.
	Others []Traffic
}

// Change is another size of a Bucket from At on. It keeps its level.
type Change struct {
	At          time.Duration
	Rate, Burst float64
}

// Traffic is PerSecond requests a second from From until To (0: for ever),
// evenly spaced, or with exponential gaps if Poisson.
type Traffic struct {
	From, To  time.Duration
	PerSecond float64
	Poisson   bool
	// On and Off, if set, make it come and go: On long, then Off long.
	On, Off time.Duration
}

// RetryAfter is what a refusal says about when to come back.
type RetryAfter int

const (
	// Ceil is the time until there is room, in whole seconds, rounded up.
	Ceil RetryAfter = iota
	// Exact is that time to the millisecond.
	Exact
	// Absent says nothing.
	Absent
	// Fluctuating is any whole number of seconds from 1 to 30.
	Fluctuating
	// Padded is Ceil and 0 to 5 s more.
	Padded
	// Short is half of Ceil, rounded down: a second refusal follows.
	Short
)

// Outage is a time in which the server answers 503 with a Retry-After that
// reaches to its end.
type Outage struct{ From, To time.Duration }

// limitState is a Limit as it stands.
type limitState struct {
	Limit
	level  float64
	at     time.Duration
	change int
	opened time.Duration
	count  int
	log    []time.Duration
	next   []time.Duration // of each of Others; below 0 when it is over
	rng    *rand.Rand
	others int

	filled   float64 // how full it was, as a share, times the seconds
	empty    float64 // seconds in which it held less than one
	index    int
	timeline *Timeline // may be nil
}

func newLimitState(l Limit, rng *rand.Rand) *limitState {
	s := &limitState{Limit: l, level: l.Burst, rng: rng}
	for i := range l.Others {
		s.next = append(s.next, l.Others[i].From)
		s.schedule(i, l.Others[i].From)
	}
	return s
}

func (s *limitState) schedule(i int, from time.Duration) {
	o := s.Others[i]
	gap := 1 / o.PerSecond
	if o.Poisson {
		gap *= s.rng.ExpFloat64()
	}
	next := from + time.Duration(gap*1e9)
	if cycle := o.On + o.Off; o.Off > 0 {
		if since := (next - o.From) % cycle; since >= o.On {
			next += cycle - since // when it comes again
		}
	}
	if o.To > 0 && next >= o.To {
		next = -1
	}
	s.next[i] = next
}

// advance brings the limit to t, with what others do until then.
func (s *limitState) advance(t time.Duration) {
	for len(s.next) > 0 {
		first := -1
		for i, n := range s.next {
			if n >= 0 && n <= t && (first < 0 || n < s.next[first]) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		at := s.next[first]
		s.refill(at)
		if ok, _ := s.room(at); ok {
			s.draw(at)
			s.others++
		}
		s.schedule(first, at)
	}
	s.refill(t)
}

// refill brings the limit to t, across its changes.
func (s *limitState) refill(t time.Duration) {
	switch s.Algorithm {
	case Fixed:
		if end := s.opened + s.Window; s.count > 0 && t >= end {
			s.stay(end)
			s.count = 0
		}
		s.stay(t)
		return
	case Sliding:
		for len(s.log) > 0 && s.log[0]+s.Window <= t {
			s.stay(s.log[0] + s.Window)
			s.log = s.log[1:]
		}
		s.stay(t)
		return
	}
	for s.change < len(s.Changes) && s.Changes[s.change].At <= t {
		c := s.Changes[s.change]
		s.grow(c.At)
		s.Rate, s.Burst = c.Rate, c.Burst
		s.level = min(s.level, s.Burst)
		s.change++
	}
	s.grow(t)
}

// stay brings a window to t, with as much in it all the time.
func (s *limitState) stay(t time.Duration) {
	if t <= s.at {
		return
	}
	left := s.Max - len(s.log)
	if s.Algorithm == Fixed {
		left = s.Max - s.count
	}
	if left < 1 {
		s.empty += float64(t-s.at) * 1e-9
	}
	share := float64(left) / float64(s.Max)
	s.passed(t, share, share)
}

// grow brings a bucket to t.
func (s *limitState) grow(t time.Duration) {
	if t <= s.at {
		return
	}
	dt := float64(t-s.at) * 1e-9
	was := s.level
	if was < 1 {
		s.empty += min(dt, (1-was)/s.Rate)
	}
	s.level = was + s.Rate*dt
	if s.level >= s.Burst {
		s.level = s.Burst
		full := s.at + time.Duration((s.Burst-was)/s.Rate*1e9)
		s.passed(min(full, t), was/s.Burst, 1)
		was = s.Burst
	}
	s.passed(t, was/s.Burst, s.level/s.Burst)
}

// passed notes how full it was until t.
func (s *limitState) passed(t time.Duration, from, to float64) {
	s.filled += float64(t-s.at) * 1e-9 * (from + to) / 2
	if s.timeline != nil {
		s.timeline.level(s.index, s.at, t, from, to)
	}
	s.at = t
}

// room reports whether a request at t, to which the limit has been brought, is
// accepted, and if not, in how long one would be.
func (s *limitState) room(t time.Duration) (bool, time.Duration) {
	switch s.Algorithm {
	case Fixed:
		if s.count < s.Max {
			return true, 0
		}
		return false, s.opened + s.Window - t
	case Sliding:
		if len(s.log) < s.Max {
			return true, 0
		}
		return false, s.log[0] + s.Window - t
	}
	if s.level >= 1-1e-9 {
		return true, 0
	}
	return false, time.Duration(math.Ceil((1 - s.level) / s.Rate * 1e9))
}

func (s *limitState) draw(t time.Duration) {
	switch s.Algorithm {
	case Fixed:
		if s.count == 0 {
			s.opened = t
			if s.Phase > 0 {
				s.opened = (t + s.Phase).Truncate(s.Window) - s.Phase
			}
		}
		s.count++
	case Sliding:
		s.log = append(s.log, t)
	default:
		s.level--
	}
}

// announce returns the Retry-After for a wait, as a client reads it.
func (r RetryAfter) announce(wait time.Duration, rng *rand.Rand) (d time.Duration, ok bool) {
	ceil := (wait + time.Second - 1).Truncate(time.Second)
	switch r {
	case Exact:
		return (wait + time.Millisecond - 1).Truncate(time.Millisecond), true
	case Absent:
		return 0, false
	case Fluctuating:
		return time.Duration(1+rng.IntN(30)) * time.Second, true
	case Padded:
		return ceil + time.Duration(rng.IntN(6))*time.Second, true
	case Short:
		return (ceil / 2).Truncate(time.Second), true
	}
	return ceil, true
}
