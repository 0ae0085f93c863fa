package dashboard

import (
	"math"
	"time"
)

// What a view may bring at most: more is not shown.
const (
	maxOrgs    = 1000
	maxLimits  = 32
	maxCallers = 200
	maxRows    = 50
	maxText    = 300 // bytes of one text
)

// shareSpan is the time over which callers are compared, rateSpan that over
// which an org's rate is taken.
const (
	shareSpan = time.Minute
	rateSpan  = 10 * time.Second
)

// history keeps what the plots need of the last views: for each limit a level
// and three rates for each view, and what each caller had sent in the last
// minute. It is a value without clock or lock.
type history struct {
	keep int         // views at most
	at   []time.Time // when each view was taken, the oldest first
	orgs map[string]*orgHistory
}

type orgHistory struct {
	seen   bool // in the newest view
	limits map[limitKey]*limitHistory
	sent   []map[string]uint64 // by caller, one for each of the last views
}

type limitKey struct{ name, scope string }

// limitHistory has one point for each of the last views: points may be fewer
// than views, then those of the oldest views are missing.
type limitHistory struct {
	seen   bool // in the newest view
	counts [3]uint64
	points []point
}

// point is what a plot shows of one view. What is not known is NaN.
type point struct {
	level float32
	rates [3]float32 // sent, accepted, rejected: each a second
}

var gap = point{nan, [3]float32{nan, nan, nan}}

var nan = float32(math.NaN())

func newHistory(keep int) *history {
	return &history{keep: keep, orgs: map[string]*orgHistory{}}
}

// add takes in the next view, which must be later than the one before.
func (h *history) add(at time.Time, orgs []Org) {
	var step time.Duration
	if n := len(h.at); n > 0 {
		step = at.Sub(h.at[n-1])
	}
	h.at = push(h.at, at, h.keep)
	for _, o := range h.orgs {
		o.seen = false
	}
	for i := range orgs {
		h.org(orgs[i].Name).add(&orgs[i], step, h)
	}
	for name, o := range h.orgs {
		if !o.seen {
			delete(h.orgs, name) // the file was reloaded without it
		}
	}
}

func (h *history) org(name string) *orgHistory {
	o := h.orgs[name]
	if o == nil {
		o = &orgHistory{limits: map[limitKey]*limitHistory{}}
		h.orgs[name] = o
	}
	return o
}

func (o *orgHistory) add(v *Org, step time.Duration, h *history) {
	o.seen = true
	for _, l := range o.limits {
		l.seen = false
	}
	limits := first(v.Limits, maxLimits)
	for i := range limits {
		o.limit(&limits[i]).add(&limits[i], step, h.keep)
	}
	for key, l := range o.limits {
		if l.seen {
			continue
		}
		// One that was forgotten leaves a gap, and its place when there is
		// nothing left to see of it.
		l.points = push(l.points, gap, h.keep)
		if l.empty() {
			delete(o.limits, key)
		}
	}
	sent := make(map[string]uint64, len(v.Callers))
	for i := range v.Callers {
		sent[v.Callers[i].Name] = v.Callers[i].Sent
	}
	o.sent = push(o.sent, sent, h.within(shareSpan))
}

// within counts the views that lie within span of the newest, and the one
// before them, which is what they are compared with.
func (h *history) within(span time.Duration) int {
	n := len(h.at)
	for i := n - 1; i >= 0; i-- {
		if h.at[n-1].Sub(h.at[i]) >= span {
			return n - i
		}
	}
	return n
}

func (o *orgHistory) limit(v *Limit) *limitHistory {
	key := limitKey{v.Name, v.Scope}
	l := o.limits[key]
	if l == nil {
		l = &limitHistory{}
		o.limits[key] = l
	}
	return l
}

func (l *limitHistory) add(v *Limit, step time.Duration, keep int) {
	p := gap
	p.level = float32(v.Level)
	counts := [3]uint64{v.Sent, v.Accepted, v.Rejected}
	if len(l.points) > 0 && step > 0 {
		for i := range counts {
			p.rates[i] = float32(float64(since(l.counts[i], counts[i])) / step.Seconds())
		}
	}
	l.seen, l.counts = true, counts
	l.points = push(l.points, p, keep)
}

// since is how far a count has come. One that fell has begun again.
func since(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

func (l *limitHistory) empty() bool {
	for _, p := range l.points {
		if !math.IsNaN(float64(p.level)) {
			return false
		}
	}
	return true
}

// shares says what each caller has sent within the last minute, and how much
// of a minute that is.
func (h *history) shares(org string) (sent map[string]uint64, over time.Duration) {
	return h.sentWithin(org, shareSpan)
}

// rate is how many requests a second an org's callers have sent of late.
func (h *history) rate(org string) float64 {
	sent, over := h.sentWithin(org, rateSpan)
	if over <= 0 {
		return 0
	}
	var sum uint64
	for _, n := range sent {
		sum += n
	}
	return float64(sum) / over.Seconds()
}

func (h *history) sentWithin(org string, span time.Duration) (map[string]uint64, time.Duration) {
	o := h.orgs[org]
	if o == nil || len(o.sent) < 2 {
		return nil, 0
	}
	back := min(h.within(span), len(o.sent))
	first, last := o.sent[len(o.sent)-back], o.sent[len(o.sent)-1]
	sent := make(map[string]uint64, len(last))
	for name, n := range last {
		sent[name] = since(first[name], n)
	}
	newest := len(h.at) - 1
	return sent, h.at[newest].Sub(h.at[newest-(back-1)])
}

// push appends to the newest of a slice and keeps the last n. It copies only
// when the slice's room is used up, so that an append costs little.
func push[T any](s []T, v T, n int) []T {
	s = append(s, v)
	if len(s) > n {
		clear(s[:len(s)-n]) // what is dropped holds no memory
		s = s[len(s)-n:]
	}
	return s
}

// newest is the last point of a limit.
func (h *history) newest(org string, key limitKey) point {
	if o := h.orgs[org]; o != nil {
		if l := o.limits[key]; l != nil && l.seen {
			return l.points[len(l.points)-1]
		}
	}
	return gap
}

// columns returns the points of an org's limits, one for each of the times.
// Both are the history's own only as far as the times are.
func (h *history) columns(org string) ([]time.Time, map[limitKey][]point) {
	columns := map[limitKey][]point{}
	if o := h.orgs[org]; o != nil {
		for key, l := range o.limits {
			column := make([]point, len(h.at))
			missing := len(h.at) - len(l.points)
			for i := range missing {
				column[i] = gap
			}
			copy(column[missing:], l.points)
			columns[key] = column
		}
	}
	return h.at, columns
}
