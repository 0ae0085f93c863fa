package bucket

import "math"

// What the full bucket holds matters where that is less than comes while the gate
// is closed: the rest runs over. It is what was told, until the first burst or
// the intervals tell otherwise.

// firstBurst is how a ramp was refused: accepted requests within seconds. It
// tells what the bucket holds, if nobody else drew on it. Zero seconds: unknown.
type firstBurst struct{ accepted, seconds float64 }

// spill is what two intervals told of a bucket that runs over while the gate is
// closed: how many it holds, and its rate. Zero: nothing.
type spill struct{ burst, rate float64 }

// capacity is what a bucket of this rate holds, going by the first burst, 0 if
// that is not known: the requests of the ramp, less those from before it was
// faster than the bucket, less what the bucket gained.
func (l *learner) capacity(rate float64) float64 {
	if l.first.seconds == 0 {
		return l.given
	}
	sent, until := 0.0, 0.0
	if from := rampStart / l.rtt; rate > from {
		growth := l.slope() / l.rtt
		until = math.Log(rate/from) / growth
		sent = (rate - from) / growth
	}
	if until >= l.first.seconds {
		return 0
	}
	return max(0, l.first.accepted-sent-rate*(l.first.seconds-until))
}

// keepBurst takes over what the bucket seems to hold, where that matters.
func (l *learner) keepBurst() {
	l.burst = math.Inf(1)
	b := l.given
	if l.first.seconds > 0 {
		// A first burst that others had a part in makes it look too small.
		b = max(certain*l.capacity(l.rate), 5, l.rate/10)
	}
	if b > 0 && b < l.rate*l.pause {
		l.burst = b
	}
}

// forgetBurst: nothing is known any more of what the bucket holds.
func (l *learner) forgetBurst() {
	l.first, l.given, l.burst = firstBurst{}, 0, math.Inf(1)
}

// spilled finds out that the bucket holds less than comes while the gate is closed,
// from intervals that began with a refusal and were open for different times: what
// is the same in each is the burst, what grows with the time is the rate. It takes
// two such pairs that agree.
func (l *learner) spilled(i interval) bool {
	was, before := l.latest, l.spill
	l.latest, l.spill = interval{}, spill{}
	if l.phase != search && l.phase != track || !l.anchor.known || l.anchor.level != emptyLevel || l.burst < math.Inf(1) {
		return false
	}
	l.latest = i
	long, short := i, was
	if long.open() < short.open() {
		long, short = short, long
	}
	if was.seconds == 0 || short.open() <= 0 || long.open() < 1.3*short.open() {
		l.spill = before
		return false
	}
	rate := (long.accepted - short.accepted) / (long.open() - short.open())
	burst := short.accepted - rate*short.open()
	gathered := rate * min(i.closed, was.closed)
	unsure := 2 * (1 + short.open()/(long.open()-short.open()))
	if burst < 1 || gathered-burst < max(2*unsure, 0.2*gathered) || rate > 3*long.accepted/long.seconds {
		return false
	}
	l.spill = spill{burst, rate}
	if math.Abs(before.burst-burst) > 0.2*gathered || math.Abs(before.rate-rate) > 0.2*rate {
		return false
	}
	l.phase, l.surprises = track, 0
	l.rate, l.variance = rate, square(0.1*rate)
	l.first, l.given = firstBurst{}, burst
	l.keepBurst()
	l.hold = max(1, l.costly())
	return true
}
