package bucket

import (
	"math"
	"time"
)

// A learner estimates a limit from what was sent and when, what was accepted,
// and each refusal with its Retry-After. docs/learning.md says what each phase
// and constant is for and what it is worth.
//
// The server's time of a request is taken to be when it was sent: the constant
// part of the way there cancels in every difference.
type learner struct {
	phase phase
	wide  bool // the ramp is not bounded
	told  bool // the rate is the one that was told, and was not contradicted

	// The estimate: tokens a second, with its variance, and how unevenly
	// others draw, as a variance in tokens² a second.
	rate, variance, noise float64
	// burst is what the full bucket holds; +Inf where that is not known, or
	// makes no difference.
	burst float64
	// given is what it holds as long as no first burst of a ramp has told:
	// what was told or measured otherwise. Zero: nothing.
	given float64

	// The model: the level was x at xAt, after n requests.
	x   float64
	xAt Instant
	n   uint64

	anchor  anchor
	episode episode
	first   firstBurst
	window  window

	opened    Instant  // when the gate opened last
	idle      float64  // seconds since then in which nobody wanted to send
	pause     float64  // how long a refusal closes the gate, in seconds, smoothed
	hold      float64  // seconds after a gate in which no more is tried
	creep     float64  // the share of the rate that is tried on top
	surprises int      // intervals in a row that were not as predicted
	steady    int      // intervals in a row that measured the same rate
	full      bool     // the bucket was full when the search began
	base      float64  // the rate before it, if that had been measured
	measured  float64  // the rate of the latest interval of a contest
	over      float64  // and how long that was, in seconds
	latest    interval // the latest, if it began with a refusal
	spill     spill    // what it and those before it told of the burst

	last     Instant // the latest request
	queued   bool    // others stood in line behind it
	accepted float64 // in all
	tested   float64 // of these, what half the bound or more was out for
	rtt      float64 // how long an answer takes, in seconds, smoothed
	backlog  float64 // callers that wait, smoothed
	pace     float64 // requests a second: the rate, and what is tried or spent beyond it
}

// phase is what a learner is at.
type phase uint8

const (
	off     phase = iota // learning is off
	ramp                 // nothing is known: what is in flight is bounded
	trust                // told, and never refused: the burst goes at once
	search               // the rate is higher than known: it doubles until refused
	track                // the rate was measured: send what the model says is there
	contend              // several compete: additive increase, multiplicative decrease
	windows              // so many in a window
)

var phaseWords = [...]string{"off", "ramp", "trust", "search", "track", "contend", "window"}

// anchor is the last moment at which the level was known.
type anchor struct {
	at       Instant
	seq      uint64 // of the last request before it
	level    float64
	variance float64
	known    bool
	failed   float64 // requests since then of which nobody knows whether they drew
	lost     float64 // requests since then that drew nothing
	spilt    float64 // tokens since then that the model had too many of
	gained   float64 // tokens since then that the model did not have
}

// episode is all refusals of requests that left before the gate closed. It ends
// when the gate opens: by then the stragglers are in.
type episode struct {
	open            bool
	from, to        Instant // when the first and the last of them were sent
	fromSeq, toSeq  uint64
	count           int
	until           Instant
	asked           Instant       // when the server's own words would open the gate
	longest         time.Duration // the longest Retry-After
	latestOfEarlier uint64        // toSeq of the episode before
}

const (
	// emptyVariance is that of the level at a refusal: anything from 0 to 1.
	emptyLevel, emptyVariance = 0.5, 1.0 / 12

	rampStart   = 2.99  // in flight: two, and a third once one is accepted
	burstTime   = 0.1   // seconds over which a told burst is spread
	certain     = 0.95  // of what the bucket seems to hold
	timerLate   = 0.005 // seconds by which a timer may be late without costing pace
	aBit        = 0.001 // seconds: what comes in it is not counted on
	slowest     = 0.2   // requests a second: the lowest rate that is tried
	lowest      = 0.01  // and the lowest that is believed, if it was not told
	searchTime  = 1.5   // seconds in which the rate doubles
	patience    = 100   // the longest hold, in seconds
	contendRate = 20    // below it, surprises are taken for competitors

	// How a rate grows that competes.
	addition   = 0.2 // a second, each second: as much for everybody
	aloneAfter = 7   // seconds without a refusal: the others have gone
	aloneTime  = 2   // seconds in which the rate of one alone doubles
	aloneFast  = 3   // seconds after which that goes twice as fast
	aloneMost  = 30  // seconds of that that count: a gate or a restart may have been long

	// How more than the rate is tried.
	creepStart = 0.02 // the share at first
	creepTime  = 0.5  // seconds in which it doubles when the model has nothing left
	creepMost  = 1

	// What the rate and the level do without a sign of it: the variance
	// of a share of the rate a second, and tokens² for each token.
	rateDrift, levelDrift = 1e-5, 0.02
)

func newLearner(rule Rule) learner {
	l := learner{phase: ramp, burst: math.Inf(1), hold: 1, pause: 1}
	l.anchor.variance = emptyVariance
	switch {
	case rule.Open:
		l.wide = true
	case rule.Rate > 0:
		l.phase, l.told = trust, true
		l.rate, l.variance = rule.Rate, square(0.01*rule.Rate)
		l.burst, l.given, l.x = rule.Burst, rule.Burst, rule.Burst
		// Others may have drawn on it already.
		l.anchor = anchor{level: rule.Burst, variance: toldVariance(rule.Burst), known: true}
		l.hold = probeEvery / rule.Rate
	case rule.Max > 0:
		l.phase, l.told = windows, true
		l.window = window{quota: rule.Max, width: rule.Window, sure: true}
		l.rate = float64(rule.Max) / rule.Window.Seconds()
		l.variance = square(0.01 * l.rate)
	}
	return l
}

// toldVariance is that of the level of a bucket of which this burst was told.
func toldVariance(burst float64) float64 { return 1 + square(0.02*burst) }

func square(f float64) float64 { return f * f }

// level brings the model to now.
func (l *learner) level(now Instant) float64 {
	if now <= l.xAt {
		return l.x
	}
	l.x += l.rate * (now - l.xAt).Seconds()
	l.xAt = now
	full := l.most()
	if l.x < full {
		return l.x
	}
	l.anchor.spilt += l.x - full
	sure := l.anchor.spilt >= 1+0.1*float64(l.n-l.anchor.seq)
	l.x = full
	switch {
	case !sure: // paced, it comes close each time
	case l.phase == trust:
		// Answers to what was sent before say nothing any more.
		l.anchorAt(l.xAt, l.n, full, toldVariance(full))
	case l.phase == track:
		// It is full: the level is known.
		variance := square(full)
		if l.burst < math.Inf(1) {
			variance = square(0.1*full) + 1
		}
		if !l.told {
			full /= certain // to measure the rate rather too low
		}
		l.anchorAt(now, l.n, full, variance)
	}
	return l.x
}

// most is what the full bucket holds, or if that is not known, twice what it has to
// gather while a gate is closed: no more is counted on after little use.
func (l *learner) most() float64 {
	if l.burst < math.Inf(1) {
		return l.burst
	}
	return max(2*l.rate*l.pause, l.capacity(l.rate), 10)
}

func (l *learner) halve() { l.rate = max(l.rate/2, min(l.rate, lowest)) }

func (l *learner) anchorAt(at Instant, seq uint64, level, variance float64) {
	l.anchor = anchor{at: at, seq: seq, level: level, variance: variance, known: true}
	l.creep = 0
}

// before is what the model says of the level right before a request was sent
// after the anchor.
func (l *learner) before(sent Instant, seq uint64) float64 {
	return l.x + float64(l.n-seq) + 1 - l.rate*(l.xAt-sent).Seconds()
}

// take notes that a request is sent while waiting callers stand in line, whether
// that is one more than the log of a window would let go, and chooses the pace for
// the next.
func (l *learner) take(now Instant, waiting int, more bool) (seq uint64) {
	l.settle(now)
	if l.n == 0 {
		l.anchor.at, l.xAt, l.last = now, now, now
	}
	l.level(now)
	gap := l.paced(now)
	l.last, l.queued = now, waiting > 0
	l.n++
	l.x--
	p := float64(waiting)
	l.backlog += (p - l.backlog) / 64
	switch l.phase {
	case search:
		l.rate *= math.Exp(l.doubling() * gap)
		l.pace = l.rate * math.Exp(l.doubling()*min(0.5/l.rate, 1))
	case contend:
		l.rate = l.competing(l.rate, now, gap)
		half := min(0.5/l.rate, 0.5/slowest) // until the middle of the wait for the next
		l.pace = l.competing(l.rate, now+Instant(half*1e9), half)
	case trust, track:
		l.pace = (l.rate - l.caution()) * (1 + l.surplus(p) + l.more(now, gap, p))
	case windows:
		l.window.take(now, l.n, more)
	}
	return l.n
}

// growing reports whether the pace says little of when those far behind in line
// will go.
func (l *learner) growing() bool {
	return l.phase == search || l.phase == contend || l.phase == track && l.sure() < 0.9
}

// soonest is how many seconds n requests take at the least at a rate that is
// looking for more. Nobody should be turned away because it is low now.
func soonest(n, rate float64) float64 {
	const growth = math.Ln2 / aloneTime // as fast as a contest; a search is a little faster
	return math.Log1p(n*growth/rate) / growth
}

// paced returns for how many seconds until now the pace has held the next request
// back: not while a gate was closed, and not for want of requests. Otherwise a
// rate would grow that nobody has tried.
func (l *learner) paced(now Instant) float64 {
	if l.n == 0 || l.pace == 0 {
		return 0
	}
	gap, due := max(0, (now-max(l.last, l.opened)).Seconds()), 1.5/l.pace
	// One long wait at a low rate must not make it a high one at a bound.
	held := min(gap, due, 1/slowest)
	if gap > due && !l.queued {
		held = 0
	}
	l.idle += gap - held
	return held
}

// competing is what a rate has grown to after seconds: by as much for everybody,
// and if nobody was refused for long, by doubling.
func (l *learner) competing(rate float64, now Instant, seconds float64) float64 {
	rate += addition * seconds
	if alone := min((now-l.opened).Seconds()-l.idle-aloneAfter, aloneMost); alone > 0 {
		rate *= math.Exp2(seconds / aloneTime * (1 + alone/aloneFast))
	}
	return rate
}

// doubling is the exponent of a search, a second.
func (l *learner) doubling() float64 { return math.Ln2 / max(searchTime, 4*l.rtt) }

// sure is from 0, the rate may be anything, to 1.
func (l *learner) sure() float64 { return max(0, 1-2*math.Sqrt(l.variance)/l.rate) }

// keep is what is not spent of the bucket: the last token, and half the burst where
// a refusal costs, to drift either way.
func (l *learner) keep() float64 {
	if l.loss() > 0 {
		return min(1+l.rate*aBit+l.burst/2, l.burst-1)
	}
	return 1 + l.rate*aBit
}

// surplus is the share of the pace by which it goes beyond the rate, to spend
// what is in the bucket over the backlog that is in sight: no gap, no burst, and
// at once if few wait.
func (l *learner) surplus(p float64) float64 {
	if l.phase == trust {
		return 0
	}
	keep := l.keep()
	if l.ending(p) {
		keep += 2 + 2*math.Sqrt(l.noise*(l.xAt-l.anchor.at).Seconds())
	}
	weight := 2.0
	if l.told {
		weight = 4
	}
	s := l.sure() * weight * (l.x - keep) / max(p, 4)
	if s > 0 && !l.told {
		s += 0.1
	}
	return min(max(s, -0.5), 1)
}

// ending reports whether the backlog drains, so that a refusal now would cost
// its whole pause.
func (l *learner) ending(p float64) bool {
	return p < 1.5*l.rate*l.pause && p < 0.6*l.backlog
}

// loss is how many seconds of the rate a refusal costs: what the bucket can't
// gather while the gate is closed.
func (l *learner) loss() float64 { return max(0, l.pause-l.burst/l.rate) }

// caution is by how much the pace stays below the rate where a refusal costs.
func (l *learner) caution() float64 {
	if l.burst == math.Inf(1) {
		return 0
	}
	return min(math.Sqrt(l.variance), l.rate/10) * min(1, l.loss())
}

// atOnce is how many requests may go at once after a time of little use: half of
// what the model has in the bucket.
func (l *learner) atOnce() float64 {
	late := 1 + l.pace*timerLate
	if l.phase != track {
		return late
	}
	return max(late, l.sure()*l.x/2)
}

// more is the share that is tried on top when nothing was refused for long.
func (l *learner) more(now Instant, gap, p float64) float64 {
	if (now-l.opened).Seconds() < l.hold || l.ending(p) {
		return 0
	}
	if l.creep == 0 {
		l.creep = creepStart
	}
	if l.sure()*l.x < l.keep() {
		l.creep = min(creepMost, l.creep*(1+math.Ln2/creepTime*min(gap, creepTime)))
	}
	return l.creep + 0.2*l.anchor.gained/l.rate
}

// inFlight is how many requests may be out while nothing is known.
func (l *learner) inFlight() float64 { return rampStart + l.tested*l.slope() }

// bound is how many requests may be out, 0 if there is no bound: the first ones
// go carefully whatever was told.
func (l *learner) bound() int {
	switch {
	case l.phase == ramp && !l.wide, l.phase == windows:
		return int(l.inFlight())
	}
	return 0
}

// distrust ends what was told of the burst: a gate has closed, and nobody may
// leave as a crowd.
func (l *learner) distrust() {
	if l.phase == trust {
		l.phase = track
	}
}

// missing is how long to stay away if the server does not say it.
func (l *learner) missing() time.Duration {
	rate := l.rate
	if l.phase == ramp {
		rate = l.inFlight() / max(l.rtt, 1e-3)
	}
	return time.Duration(max(0.2, 2*l.rtt, min(2/rate, 1)) * 1e9)
}

// slope is by how much more may be in flight for each that was accepted. That
// bounds what the first refusals can be.
func (l *learner) slope() float64 { return max(0.01, min(0.5, 1.5*l.rtt)) }

// answered notes that a request was accepted.
func (l *learner) answered(sent Instant, seq uint64, now Instant) {
	l.accepted++
	rtt := (now - sent).Seconds()
	if l.rtt == 0 {
		l.rtt = rtt
	}
	l.rtt += (rtt - l.rtt) / 20
	switch l.phase {
	case windows:
		l.windowAccepted(seq)
	case trust, track:
		if !l.episode.open && seq > l.anchor.seq && !l.blurred() {
			l.found(sent, 1-l.before(sent, seq))
		}
	}
}

// found notes that the level was higher than the model had it: a request was
// accepted for which there was no token.
func (l *learner) found(sent Instant, tokens float64) {
	if tokens <= 0 {
		return
	}
	span := max((sent - l.anchor.at).Seconds(), 0.01)
	l.anchor.gained += tokens
	l.x += tokens
	mine := (l.variance + rateDrift*square(l.rate)*span) * square(span)
	l.rate += mine / (mine + (l.noise+levelDrift*l.rate)*span + l.anchor.variance) * tokens / span
	unsure := 3*math.Sqrt(l.noise*span) + 2*math.Sqrt(l.anchor.variance)
	usual := min(3, 1+l.rate/2) + min(unsure, l.rate/2)
	if l.anchor.gained > usual {
		l.rises(l.pace)
	}
}

// rises begins a search from a rate that was accepted.
func (l *learner) rises(from float64) {
	l.phase, l.told = search, false
	l.full = l.burst < l.rate*l.pause
	l.base = l.rate
	l.rate = max(l.rate, from)
	l.variance = square(l.rate)
	l.anchor.known = false
	l.anchor.at, l.anchor.seq, l.anchor.lost = l.last, l.n, 0
}

// unclear notes that a request was answered, but may not have come as far as the
// limit.
func (l *learner) unclear(seq uint64) {
	if seq > l.anchor.seq {
		l.anchor.failed++
	}
}

// blurred reports whether so much was unclear since the anchor that it says
// nothing of the rate.
func (l *learner) blurred() bool {
	return l.anchor.failed > 2+0.05*float64(l.n-l.anchor.seq)
}

// drewNothing notes that the limit did not see a request.
func (l *learner) drewNothing(seq uint64) {
	if seq > l.anchor.seq {
		l.anchor.lost++
		l.x++
	}
}

// refused notes a refusal that closes the gate until until.
func (l *learner) refused(sent Instant, seq uint64, now, until Instant, asked time.Duration) {
	l.settle(now)
	if l.phase == windows {
		l.windowTested(sent)
	}
	e := &l.episode
	if seq <= e.latestOfEarlier {
		return
	}
	if !e.open {
		*e = episode{open: true, from: sent, to: sent, fromSeq: seq, toSeq: seq, latestOfEarlier: e.latestOfEarlier}
	}
	if seq < e.fromSeq {
		e.from, e.fromSeq = sent, seq
	}
	if seq > e.toSeq {
		e.to, e.toSeq = sent, seq
	}
	e.count++
	e.until = max(e.until, until)
	e.asked = max(e.asked, now+asked)
	e.longest = max(e.longest, asked)
}

// settle draws the conclusions of an episode once the gate is open.
func (l *learner) settle(now Instant) {
	e := &l.episode
	if !e.open || now < e.until {
		return
	}
	e.open = false
	e.latestOfEarlier = e.toSeq
	closed := max(0, (l.opened - l.anchor.at).Seconds()) // during the interval
	l.opened, l.idle = e.until, 0
	l.pause += ((e.until - e.from).Seconds() - l.pause) / 4
	l.distrust()
	if l.phase == track && l.blurred() {
		// Nobody knows what it measured, but what it cost.
		l.hold = max(l.hold, l.rarely(), l.costly())
	} else {
		l.conclude(interval{
			accepted: max(0, float64(e.fromSeq)-float64(l.anchor.seq)-1-l.anchor.lost),
			seconds:  max((e.from - l.anchor.at).Seconds(), 1e-3),
			closed:   closed,
		})
	}
	if l.phase == windows {
		return
	}
	l.x, l.xAt = emptyLevel-float64(l.n-e.toSeq), e.to
	l.anchorAt(e.to, e.toSeq, emptyLevel, emptyVariance)
	l.level(now)
	l.pace = l.rate
}
