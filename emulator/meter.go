package emulator

import (
	"math"
	"time"
)

// meter is the state of one limit for one key: one bucket, or one window. It is
// guarded by the server's mutex. Its times are offsets since the script's start
// and never go backwards.
type meter struct {
	rule *rule
	key  string
	set  int // index of the setting in force
	gens []generator

	// A bucket's level is base + rate·(now − anchor) − drawn. Computing it from
	// an anchor, and not step by step, keeps rounding from piling up.
	anchor time.Duration
	base   float64
	drawn  float64

	opened time.Duration // Fixed: when the window opened, if count > 0
	count  int
	log    []time.Duration // Sliding: when those that still count were accepted

	accepted, refused, other int64
	first, last              time.Duration // of all that were taken
}

// generator yields the arrivals of other traffic, one by one.
type generator struct {
	fault Fault
	k     float64
}

func (g *generator) next() (time.Duration, bool) {
	t := g.fault.From + seconds(g.k/g.fault.PerSecond)
	return t, g.fault.To == 0 || t < g.fault.To
}

func newMeter(r *rule, key string, now time.Duration) *meter {
	m := &meter{rule: r, key: key, set: r.settingAt(now), anchor: now}
	m.base = m.now().burst
	for _, f := range r.traffic {
		g := generator{fault: f}
		if now > f.From {
			g.k = math.Ceil((now - f.From).Seconds() * f.PerSecond)
		}
		m.gens = append(m.gens, g)
	}
	return m
}

// now is the setting in force.
func (m *meter) now() setting { return m.rule.settings[m.set] }

// advance brings the meter to t: it plays what the script did to the limit
// since the last time, in order.
func (m *meter) advance(t time.Duration) {
	for {
		at, gen := t+1, -1
		for i := range m.gens {
			if n, ok := m.gens[i].next(); ok && n < at {
				at, gen = n, i
			}
		}
		if m.set+1 < len(m.rule.settings) && m.rule.settings[m.set+1].at <= min(at, t) {
			m.change()
			continue
		}
		if gen < 0 {
			return
		}
		m.gens[gen].k++
		if ok, _ := m.ready(at); ok {
			m.take(at)
			m.other++
		}
	}
}

// change puts the next setting in force. A bucket keeps its level, cut to the
// new burst.
func (m *meter) change() {
	at := m.rule.settings[m.set+1].at
	level := m.level(at)
	m.set++
	m.anchor, m.base, m.drawn = at, min(level, m.now().burst), 0
}

// level is what the bucket holds at t.
func (m *meter) level(t time.Duration) float64 {
	s := m.now()
	l := m.base + s.rate*(t-m.anchor).Seconds() - m.drawn
	if l > s.burst {
		m.anchor, m.base, m.drawn = t, s.burst, 0
		l = s.burst
	}
	return l
}

// ready says whether the limit would accept a request at t and, if not, how
// long after t it would, provided that nobody else draws meanwhile.
func (m *meter) ready(t time.Duration) (bool, time.Duration) {
	s := m.now()
	switch m.rule.Algorithm {
	case Bucket:
		l := m.level(t)
		if l >= 1-slack {
			return true, 0
		}
		// Rounded up to the nanosecond, but not for the sake of rounding
		// errors that are smaller than slack.
		ns := (1 - l) / s.rate * 1e9
		ns = math.Ceil(ns - min(1e-3, 0.5/s.rate))
		return false, time.Duration(max(1, min(ns, 1e18)))
	case Fixed:
		if m.count > 0 && t >= m.opened+s.window {
			m.count = 0
		}
		if m.count < s.max {
			return true, 0
		}
		return false, m.opened + s.window - t
	default:
		old := 0
		for old < len(m.log) && m.log[old] <= t-s.window {
			old++
		}
		m.log = m.log[old:]
		if len(m.log) < s.max {
			return true, 0
		}
		return false, m.log[len(m.log)-s.max] + s.window - t
	}
}

// draw takes one from the limit at t. The limit must be ready.
func (m *meter) draw(t time.Duration) {
	switch m.rule.Algorithm {
	case Bucket:
		m.drawn++
	case Fixed:
		if m.count == 0 {
			m.opened = m.rule.opened(t, m.now())
		}
		m.count++
	default:
		m.log = append(m.log, t)
	}
}

// take draws one and notes when, for the report.
func (m *meter) take(t time.Duration) {
	if m.accepted+m.other == 0 {
		m.first = t
	}
	m.last = t
	m.draw(t)
}

// penalise makes a refused request cost, ready or not.
func (m *meter) penalise(t time.Duration) {
	if ok, _ := m.ready(t); !ok && m.rule.Algorithm == Bucket {
		m.drawn += max(0, m.level(t))
		return
	}
	m.draw(t)
}
