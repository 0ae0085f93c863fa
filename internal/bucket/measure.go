package bucket

import "math"

// probeEvery is how many requests are accepted between two attempts to find out
// whether a limit gives more than it was told to.
const probeEvery = 500

// interval is the time between two instants at which the level was known.
type interval struct {
	accepted float64
	seconds  float64
	closed   float64 // of these, the gate was
}

// open is for how many seconds the gate was not closed.
func (i interval) open() float64 { return i.seconds - i.closed }

// rate is what the interval measures, whatever others took meanwhile.
func (i interval) rate(level float64) float64 { return (i.accepted - level + emptyLevel) / i.seconds }

// conclude learns from the interval that a refusal has ended.
func (l *learner) conclude(i interval) {
	if l.spilled(i) {
		return
	}
	switch l.phase {
	case ramp:
		l.endRamp(i)
	case search:
		l.endSearch(i)
	case trust, track:
		l.correct(i)
	case contend:
		l.compete(i)
	case windows:
		l.windowRefused(i)
	}
}

// endRamp: the first refusal has come when nothing was known.
func (l *learner) endRamp(i interval) {
	reached := i.accepted / i.seconds
	// If requests came more slowly than they could have, neither how many were
	// accepted nor how long that took says what the bucket holds.
	crowded := l.tested >= 0.9*l.accepted
	if crowded {
		l.first = firstBurst{i.accepted, i.seconds}
	}
	if l.wide { // nothing bounded what came
		reached = max(reached, 8)
	} else {
		reached = max(reached, 0.5*l.inFlight()/max(l.rtt, 1e-3))
	}
	l.rate = max(min(0.5*reached, 4*max(i.accepted, 1)), slowest)
	l.variance = square(l.rate)
	l.phase = search
	if crowded && l.looksLikeWindow(i) {
		l.phase = windows
	}
}

// endSearch: the rate has doubled until it was refused.
func (l *learner) endSearch(i interval) {
	b := l.capacity(i.accepted / i.seconds)
	if !l.anchor.known {
		if !l.full || b == 0 || i.accepted < 2*b {
			// The level at the start is not known: another one, from here.
			l.halve()
			l.rate, l.base = max(l.rate, l.base), 0
			return
		}
		l.rate, l.variance = 0, 0
		i.closed = 0
		l.drain(i, b, true)
	} else {
		l.rate = max(i.rate(emptyLevel), slowest)
		l.variance = 4 * emptyVariance / square(i.seconds)
		for range 3 { // the capacity depends on the rate, and the rate on it
			if b = l.capacity(l.rate); b > 0 && l.rate*i.closed > b {
				l.drain(i, b, false)
			}
		}
	}
	l.keepBurst()
	l.phase, l.surprises = track, 0
	l.hold = max(1, l.costly())
	if l.rate < contendRate {
		l.startContending()
	}
}

// startContending: there may be others, and the first burst was not all ours.
func (l *learner) startContending() {
	l.phase = contend
	l.forgetBurst()
	l.hold = min(l.hold, 1)
}

// drain takes the rate from a search in which a bucket of b was full until the
// search was faster than it refills.
func (l *learner) drain(i interval, b float64, full bool) {
	t := max(i.seconds-i.closed, 1e-3)
	growth := l.doubling()
	from := i.accepted * growth / (math.Exp(growth*t) - 1) // the search's first rate
	low, high := l.rate, 2*(i.accepted+1)/t
	r, draining := low, t
	for range 30 { // halves what it lies between
		r = (low + high) / 2
		until := min(max(math.Log(r/from)/growth, 0), t)
		sent := from * (math.Exp(growth*until) - 1) / growth
		level := b
		if !full {
			level = min(b, r*i.closed)
		}
		level = min(b, level+r*until-sent)
		draining = t - until
		if level+r*draining-(i.accepted-sent) > emptyLevel {
			high = r
		} else {
			low = r
		}
	}
	l.rate = max(r, lowest)
	l.variance = (4*emptyVariance + square(0.1*b)) / square(max(draining, 1e-3))
}

// correct brings the estimate in line with what an interval has measured.
func (l *learner) correct(i interval) {
	l.phase = track
	full := l.anchor.level >= 1
	first := max(1, i.accepted-l.rate*i.seconds) // what the bucket held, if the rate is right
	if l.told && full && i.accepted < l.anchor.level/2-2*math.Sqrt(l.anchor.variance) {
		// Not our bucket.
		l.phase, l.told = search, false
		l.halve()
		l.forgetBurst()
		l.given = first
		return
	}
	if l.told && full && first > i.accepted/2 && first < certain*l.anchor.level {
		// It holds less than was told. Nothing was measured of the rate.
		l.given = first
		l.keepBurst()
		l.hold = max(l.hold, l.costly())
		return
	}
	slack := 2 * math.Sqrt(l.anchor.variance)
	measured := i.rate(l.anchor.level)
	wrong := l.rate - measured
	miss := math.Abs(wrong) * i.seconds
	if full && !l.told && wrong > 0 && miss > 1+0.1*i.accepted+slack+2*math.Sqrt(l.variance)*i.seconds {
		// It was not full: others share it, or it holds less.
		l.forgetBurst()
		l.variance = max(l.variance, square(l.rate/4))
		l.surprise(i)
		return
	}
	l.variance += rateDrift * square(l.rate) * i.seconds
	spread := ((l.noise+levelDrift*l.rate)*i.seconds + l.anchor.variance) / square(i.seconds)
	jump := square(wrong) > 9*(l.variance+spread)
	before := l.rate
	if jump {
		l.variance = square(wrong)
	}
	gain := l.variance / (l.variance + spread)
	if !full && l.anchor.level >= 0 { // a debt from before a restart is a guess
		gain = max(gain, 0.3)
		l.noise += 0.3 * (min(max(square(wrong)*i.seconds-l.variance*i.seconds-l.anchor.variance/i.seconds, 0), 4*l.rate) - l.noise)
	}
	if full && l.creep == 0 && wrong > 0 {
		// Nobody has asked for it: the interval may have been too short to
		// measure the rate, but it is too high.
		gain = max(gain, 0.3)
	}
	l.rate = max(l.rate-gain*wrong, l.rate/5, min(l.rate, lowest))
	l.variance *= 1 - min(gain, 0.99)
	wasTold := l.told
	if jump {
		l.told = false
		l.variance = max(l.variance, square(0.1*before))
	}
	switch {
	case !jump && miss < 1+0.02*i.accepted+slack && i.accepted >= 8:
		if l.creep > 0 { // and it was we who asked for it
			l.hold = min(max(min(2*l.hold, 20), 1.25*l.hold), patience, l.rarely())
		}
		if l.told {
			l.hold = l.rarely()
		}
		l.hold = max(l.hold, l.costly())
		l.surprises = 0
	case jump || miss > 1+0.1*i.accepted+slack:
		l.hold = max(1, l.hold/4)
		if jump {
			l.hold = 1
		}
		l.surprise(i)
	}
	if wasTold && jump && l.sure() == 0 {
		l.phase = search
	}
}

// rarely is the hold that keeps the refusals of a limit that stands still at one
// in probeEvery.
func (l *learner) rarely() float64 { return probeEvery * float64(l.episode.count) / l.rate }

// costly is the hold that keeps the cost of trying at two per cent.
func (l *learner) costly() float64 { return min(l.loss()/0.02, 60) }

// surprise: an interval was not as predicted.
func (l *learner) surprise(i interval) {
	l.surprises++
	if l.surprises >= 2 && l.rate < contendRate {
		l.startContending()
	}
}

// compete halves the rate, unless the same was measured several times: then
// nobody competes.
func (l *learner) compete(i interval) {
	measured := i.rate(emptyLevel)
	if i.accepted > 0 && math.Abs(measured-l.measured)*l.over < 1+min(1, i.seconds/max(l.over, 1e-3))+0.01*i.accepted {
		l.steady++
	} else {
		l.steady = 0
	}
	l.measured, l.over = measured, i.seconds
	if l.steady >= 3 {
		l.phase, l.rate, l.variance = track, max(measured, slowest), 1/square(i.seconds)
		l.steady, l.surprises = 0, 0
		return
	}
	l.rate = max(slowest, l.rate/2)
}
