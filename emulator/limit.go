package emulator

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Limit is one rule of the server. Every request that it matches draws one from
// it, or is refused with a 429 that names it.
type Limit struct {
	// Name is the limit's key in a 429's body and in the limits API. Zero means
	// "<per>.rate.per.minute", as in token.rate.per.minute. Names are unique.
	Name string
	// Namespace is the limit's namespace. Zero means platform.api.
	Namespace string
	// Per is what the limit counts: each token, client, org or path has a
	// bucket or window of its own. Zero means PerToken.
	Per Per
	// Match restricts the limit to some requests: a path, or a method, a space
	// and a path. In the path, * stands for any one segment and a ** at the end
	// for any rest. Zero means everything under /api.
	Match string
	// Algorithm is how it counts. Zero means Bucket.
	Algorithm Algorithm
	// Rate and Burst make a Bucket: it holds Burst, starts full, and refills
	// continuously with Rate per second. Rate must be above 0. Burst is at least
	// 1; zero means as much as one second refills, but at least 1.
	Rate, Burst float64
	// Max and Window make a Fixed or Sliding window: at most Max requests in
	// Window. Max must be at least 1; Window zero means 60 s.
	Max    int
	Window time.Duration
	// Phase makes the windows of a Fixed limit follow each other by the clock,
	// whoever sends when: one is Phase old when the script starts. It is less
	// than Window; zero means that a window opens with a request.
	Phase time.Duration
	// Value is the number that a 429's body and the limits API give for it.
	// Zero means Max for a window and Rate·60 for a bucket.
	Value int
}

// Per is what a limit counts.
type Per string

// The values of [Per].
const (
	PerToken  Per = "token"
	PerClient Per = "client" // all tokens of one client together
	PerOrg    Per = "org"    // all requests together
	PerPath   Per = "path"   // each route on its own, ids folded, for all tokens together
)

// Algorithm is how a limit counts.
type Algorithm string

// The values of [Algorithm].
const (
	// Bucket refills continuously and lets a request through when it holds at
	// least one token.
	Bucket Algorithm = "bucket"
	// Fixed is a window that opens at the first request it accepts and closes
	// Window later; the next request opens the next one.
	Fixed Algorithm = "fixed"
	// Sliding allows at most Max in any Window: a request stops counting
	// exactly Window after it was accepted.
	Sliding Algorithm = "sliding"
)

// slack is what a bucket's level may miss of a whole token: the rounding of
// floating point, never a real fraction.
const slack = 1e-9

func (l Limit) withDefaults() Limit {
	l.Per = cmp.Or(l.Per, PerToken)
	l.Name = cmp.Or(l.Name, string(l.Per)+".rate.per.minute")
	l.Namespace = cmp.Or(l.Namespace, "platform.api")
	l.Algorithm = cmp.Or(l.Algorithm, Bucket)
	if l.Algorithm == Bucket {
		l.Burst = cmp.Or(l.Burst, max(1, l.Rate))
	} else {
		l.Window = cmp.Or(l.Window, time.Minute)
	}
	return l
}

func (l Limit) validate(field string) error {
	if !slices.Contains([]Per{PerToken, PerClient, PerOrg, PerPath}, l.Per) {
		return fmt.Errorf("emulator: %s.Per must be token, client, org or path, got %q", field, l.Per)
	}
	if err := validatePattern(field+".Match", l.Match); err != nil {
		return err
	}
	if l.Value < 0 {
		return fmt.Errorf("emulator: %s.Value must not be negative, got %d", field, l.Value)
	}
	switch l.Algorithm {
	case Bucket:
		if !isPositive(l.Rate) {
			return fmt.Errorf("emulator: %s.Rate must be above 0 and finite, got %v", field, l.Rate)
		}
		if !(l.Burst >= 1) || math.IsInf(l.Burst, 1) {
			return fmt.Errorf("emulator: %s.Burst must be at least 1 and finite, got %v", field, l.Burst)
		}
		if l.Max != 0 || l.Window != 0 || l.Phase != 0 {
			return fmt.Errorf("emulator: %s.Max and Window are for windows, and so is Phase, but its Algorithm is bucket", field)
		}
	case Fixed, Sliding:
		if l.Max < 1 {
			return fmt.Errorf("emulator: %s.Max must be at least 1, got %d", field, l.Max)
		}
		if l.Window <= 0 {
			return fmt.Errorf("emulator: %s.Window must be above 0, got %v", field, l.Window)
		}
		if l.Phase < 0 || l.Phase >= l.Window || l.Phase > 0 && l.Algorithm != Fixed {
			return fmt.Errorf("emulator: %s.Phase must be less than the Window of a fixed one, got %v", field, l.Phase)
		}
		if l.Rate != 0 || l.Burst != 0 {
			return fmt.Errorf("emulator: %s.Rate and Burst are for a bucket, but its Algorithm is %s", field, l.Algorithm)
		}
	default:
		return fmt.Errorf("emulator: %s.Algorithm must be bucket, fixed or sliding, got %q", field, l.Algorithm)
	}
	return nil
}

// setting is the size of a limit from a moment on.
type setting struct {
	at          time.Duration
	rate, burst float64
	max         int
	window      time.Duration
}

// rule is a limit ready to run, with what the script does to it. It never
// changes. Its times are offsets since the script's start.
type rule struct {
	Limit
	match    pattern
	settings []setting // in order of time; the first holds from the beginning
	traffic  []Fault   // of kind Traffic
}

func newRule(l Limit, script []Fault) *rule {
	r := &rule{Limit: l, match: parsePattern(l.Match)}
	cur := setting{at: math.MinInt64, rate: l.Rate, burst: l.Burst, max: l.Max, window: l.Window}
	r.settings = append(r.settings, cur)
	var changes []Fault
	for _, f := range script {
		switch {
		case f.Limit != l.Name:
		case f.Kind == Traffic:
			r.traffic = append(r.traffic, f)
		case f.Kind == Change:
			changes = append(changes, f)
		}
	}
	slices.SortStableFunc(changes, func(a, b Fault) int { return cmp.Compare(a.From, b.From) })
	for _, f := range changes {
		cur.at = f.From
		cur.rate = cmp.Or(f.Rate, cur.rate)
		cur.burst = cmp.Or(f.Burst, cur.burst)
		cur.max = cmp.Or(f.Max, cur.max)
		cur.window = cmp.Or(f.Window, cur.window)
		r.settings = append(r.settings, cur)
	}
	return r
}

// settingAt returns the index of the setting in force at t.
func (r *rule) settingAt(t time.Duration) int {
	i := len(r.settings) - 1
	for i > 0 && r.settings[i].at > t {
		i--
	}
	return i
}

// opened returns when the window began that accepts its first request at t.
func (r *rule) opened(t time.Duration, s setting) time.Duration {
	if r.Phase == 0 {
		return t
	}
	return (t + r.Phase).Truncate(s.window) - r.Phase
}

// value is the number that the platform publishes for the limit.
func (r *rule) value(s setting) int {
	switch {
	case r.Value != 0:
		return r.Value
	case r.Algorithm == Bucket:
		return int(math.Round(min(s.rate*60, 1e15)))
	default:
		return s.max
	}
}

// possible is how many requests the limit could accept from first to last, a
// full bucket or a fresh window at first.
func (r *rule) possible(first, last time.Duration) float64 {
	i := r.settingAt(first)
	if r.Algorithm != Bucket {
		var n float64
		for t := first; t <= last; {
			s := r.settings[r.settingAt(t)]
			n += float64(s.max)
			t = r.opened(t, s) + s.window
		}
		return n
	}
	n := r.settings[i].burst
	for t := first; t < last; i++ {
		end := last
		if i+1 < len(r.settings) {
			end = min(end, r.settings[i+1].at)
		}
		n += r.settings[i].rate * (end - t).Seconds()
		t = end
	}
	return n
}

// ideal is the shortest span, beginning at first, in which the limit could
// accept n requests.
func (r *rule) ideal(first time.Duration, n int64) time.Duration {
	if n <= 0 {
		return 0
	}
	if r.Algorithm != Bucket {
		t, left := first, n
		for {
			s := r.settings[r.settingAt(t)]
			if left -= int64(s.max); left <= 0 {
				return t - first
			}
			t = r.opened(t, s) + s.window
		}
	}
	i := r.settingAt(first)
	t, missing := first, float64(n)-r.settings[i].burst
	for missing > slack {
		need := seconds(missing / r.settings[i].rate)
		if i+1 < len(r.settings) && t+need > r.settings[i+1].at {
			missing -= r.settings[i].rate * (r.settings[i+1].at - t).Seconds()
			t = r.settings[i+1].at
			i++
			continue
		}
		return t + need - first
	}
	return t - first
}

// seconds turns seconds into a duration, rounded to the nanosecond and bounded
// to about 31 years.
func seconds(s float64) time.Duration {
	return time.Duration(math.Round(min(s, 1e9) * 1e9))
}
