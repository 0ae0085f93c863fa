// Package bucket models the state of one server-side limit as its client sees
// it: pure arithmetic on a value, without clock, lock, goroutine or context.
//
// Time is an [Instant] on a line that the owner of the bucket chooses, and
// every method takes it. Instants must not go backwards between calls; if one
// does, it counts as the latest that was seen.
package bucket

import (
	"math"
	"time"
)

// Instant is a point in time: the time since an epoch of the owner's choice.
type Instant = time.Duration

// Never is an Instant that does not come.
const Never Instant = math.MaxInt64

// A permit that is planned for an instant must be granted at that instant,
// although the level is a float: so much may be missing.
const epsilon = 1e-6

// holdRefill bounds how long a full bucket waits for its first request to be
// sent before it counts as refilling. See Take.
const holdRefill = time.Second

// probePatience is how long the one probe behind a gate may stay unanswered
// before the next is let through, so that a slow answer delays the rest but
// does not stop it.
const probePatience = 2 * time.Second

// slowStartEnd is the number of answers after which an unlimited bucket that
// was refused counts as unlimited again.
const slowStartEnd = 1024

// WireJitter is how unevenly requests may arrive although they were sent
// evenly. A limit keeps so much time in hand, because what arrives early is
// refused.
const WireJitter = 25 * time.Millisecond

// Rule is what is believed of a limit. The zero Rule is unlimited: it refuses
// nothing until the server does.
type Rule struct {
	// Rate is tokens a second, Burst how many the full bucket holds (at
	// least 1).
	Rate, Burst float64
	// Max requests in any Window, instead of Rate and Burst.
	Max    int
	Window time.Duration
	// Learn: the rest is where it starts, and what the server does goes
	// over it. With no rest nothing is known, and requests begin as a ramp;
	// with Open not before the server has refused one.
	Learn, Open bool
	// Ceiling is a rate that is never exceeded, whatever is learned. 0 is
	// none.
	Ceiling float64
}

// Unlimited reports whether r refuses nothing.
func (r Rule) Unlimited() bool { return r.Rate == 0 && r.Max == 0 && (!r.Learn || r.Open) }

// PerSecond returns the rate that the rule allows in the long run, 0 if it says
// none.
func (r Rule) PerSecond() float64 {
	if r.Max > 0 {
		return float64(r.Max) / r.Window.Seconds()
	}
	return r.Rate
}

// usable is the part of the burst that is spent: the rest is in hand for
// requests that arrive closer together than they were sent.
func (r Rule) usable() float64 {
	reserve := min(r.Burst/10, 1+r.Rate*WireJitter.Seconds())
	return max(1, r.Burst-reserve)
}

// Bucket is the state of one limit. Make one with New.
type Bucket struct {
	rule    Rule
	learner learner

	// What is kept to: a rate, or so many in a window, or neither. Without
	// a learner it is the rule.
	rate   float64
	max    int
	window time.Duration

	full float64 // tokens in a full bucket, less the reserve
	// The level was level at the instant at and grows by Rate from then
	// on; at may lie in the future.
	level float64
	at    Instant
	held  bool // at waits for Left

	// For a window: when each of the last Max requests went.
	log ring

	// The gate is closed from gateFrom until gate.
	gateFrom, gate Instant
	closed         time.Duration // how long earlier gates were closed
	// After the gate, at most slowStart requests that left since may be
	// unanswered; 0 is no such bound.
	slowStart int
	inFlight  int
	lastProbe Instant
	probing   bool // since the gate closed, nothing was accepted
	refusals  int  // refusals in a row, one counted for each gate
}

// New returns a full bucket.
func New(rule Rule) Bucket {
	b := Bucket{rule: rule, rate: rule.Rate, max: rule.Max, window: rule.Window}
	if rule.Rate > 0 {
		b.full = rule.usable()
		b.level = b.full
	}
	if rule.Learn {
		b.learner = newLearner(rule)
		b.slowStart = b.learner.bound()
	}
	return b
}

// settle lets the learner conclude from a refusal once the gate is open.
func (b *Bucket) settle(now Instant) {
	if e := &b.learner.episode; e.open && now >= e.until {
		b.learner.settle(now)
		b.follow(now)
	}
}

// follow makes the bucket keep to what the learner says.
func (b *Bucket) follow(now Instant) {
	l := &b.learner
	switch l.phase {
	case off, ramp:
		return
	case windows:
		b.followWindow()
		return
	}
	if b.rate == 0 {
		b.level, b.at, b.log, b.max = 1, now, ring{}, 0
	}
	if l.phase != trust {
		b.full = l.atOnce()
	}
	b.level, b.at = b.levelAt(now), max(b.at, now)
	b.rate = l.pace
}

// followWindow keeps to the learner's window. The log of the ramp is not known:
// it is taken to have been even.
func (b *Bucket) followWindow() {
	w := &b.learner.window
	if b.max == 0 { // what was used of it before it was known
		for i := range w.quota {
			b.log.push(w.begun+Instant(float64(w.filled)*float64(i)/float64(w.quota)), w.quota)
		}
	}
	if w.quota < b.max {
		b.log.keep(w.quota)
	}
	b.max, b.window = w.quota, w.width
}

// PerSecond returns the rate that the limit leaves in the long run, told or
// learned, without what is tried or spent beyond it; 0 if it is not known.
func (b *Bucket) PerSecond() float64 {
	switch b.learner.phase {
	case off:
		return b.rule.PerSecond()
	case ramp:
		return 0
	}
	return b.learner.rate
}

// Paced reports whether a rate or a window is kept to, told or learned.
func (b *Bucket) Paced() bool { return b.rate > 0 || b.max > 0 }

// Spent returns how many tokens a full bucket lacks at now: more than it holds
// if some are owed. An unlimited bucket lacks none.
func (b *Bucket) Spent(now Instant) float64 {
	switch {
	case b.max > 0:
		n := 0
		for i := range b.log.n {
			if b.log.at(i)+b.window > now {
				n++
			}
		}
		return float64(n)
	case b.rule.Learn && b.rule.Rate > 0:
		return max(0, b.rule.Burst-b.learner.levelAt(now))
	case b.rule.Learn:
		return 0
	case b.rate > 0:
		return b.full - b.levelAt(now)
	}
	return 0
}

func (b *Bucket) levelAt(t Instant) float64 {
	if t <= b.at {
		return b.level
	}
	return min(b.full, b.level+b.rate*(t-b.at).Seconds())
}

// Ready returns the earliest instant, not before now, at which the n-th of n
// requests could go if nobody else takes any: the time at which a waiter
// with n-1 others ahead has its turn.
func (b *Bucket) Ready(now Instant, n int) Instant {
	b.settle(now)
	at := max(now, b.gate, b.slowStartReady(), b.refilled(now, 1), b.spaced(now, n))
	if n > 1 {
		// Beyond the first it is a guess: how the pace will grow, whether a
		// window is one. Nobody goes before those ahead.
		at = max(at, b.refilled(now, n))
	}
	return at
}

// spaced says when the ceiling lets the n-th request go, and in what time a told
// burst goes.
func (b *Bucket) spaced(now Instant, n int) Instant {
	l := &b.learner
	gap := 0.0
	if b.rule.Ceiling > 0 {
		gap = 1 / b.rule.Ceiling
	}
	if l.phase == trust {
		gap = max(gap, min(burstTime/l.burst, 1/l.rate))
	}
	switch {
	case gap == 0:
		return 0
	case l.n == 0:
		return later(now, float64(n-1)*gap)
	}
	return later(l.last, float64(n)*gap)
}

// Turn is Ready for an estimate: it counts on what was taken with hold leaving
// at once.
func (b *Bucket) Turn(now Instant, n int) Instant {
	b.settle(now)
	if b.held && now < b.at {
		leaving := *b
		leaving.at = now
		return leaving.Ready(now, n)
	}
	return b.Ready(now, n)
}

// slowStartReady says when the bound on unanswered requests lets one more go.
func (b *Bucket) slowStartReady() Instant {
	if b.slowStart == 0 || b.inFlight < b.slowStart {
		return 0
	}
	return b.lastProbe + probePatience
}

// refilled says when there are n tokens.
func (b *Bucket) refilled(now Instant, n int) Instant {
	switch {
	case b.max > 0:
		return b.windowReady(now, n)
	case b.rate > 0:
		missing := float64(n) - b.level
		if missing <= epsilon {
			return 0
		}
		if n > 1 && b.learner.growing() {
			return later(b.at, soonest(missing, b.rate))
		}
		return later(b.at, missing/b.rate)
	}
	return 0
}

// later adds seconds to t, rounded up and saturated.
func later(t Instant, seconds float64) Instant {
	ns := math.Ceil(seconds * 1e9)
	if ns >= float64(Never-max(t, 0)) {
		return Never
	}
	return t + Instant(ns)
}

// windowReady says when the n-th request from here fits the window: the
// request Max places before it must be a whole window old.
func (b *Bucket) windowReady(now Instant, n int) Instant {
	if n == 1 && b.learner.phase == windows {
		return b.learner.window.ready(now, b.fits(now, 1))
	}
	if b.learner.phase == windows && !b.learner.window.sure {
		return later(b.fits(now, 1), soonest(float64(n-1), b.learner.rate))
	}
	return b.fits(now, n)
}

// fits says when the n-th request from here fits the log.
func (b *Bucket) fits(now Instant, n int) Instant {
	whole, rest := (n-1)/b.max, (n-1)%b.max
	width := b.window + WireJitter
	free := b.max - b.log.n
	first := now
	if rest >= free {
		first = max(now, b.log.at(rest-free)+width)
	}
	if Instant(whole) > (Never-first)/width {
		return Never
	}
	return first + Instant(whole)*width
}

// Take spends one token at now. The caller has asked Ready; a token that is
// not there is owed.
//
// With hold, a full bucket does not begin to refill before Left is called (or
// a second has passed): at the server it is full until the first request
// arrives, and what is credited before that would be spent twice.
//
// Waiting is how many more stand in line. What Take returns names the request to
// Accepted, Refused, Unanswered and Return.
func (b *Bucket) Take(now Instant, hold bool, waiting int) (seq uint64) {
	if b.rule.Learn {
		seq = b.learner.take(now, waiting, b.max > 0 && b.fits(now, 1) > now)
		b.follow(now)
	}
	switch {
	case b.max > 0:
		b.at = now
		if w := &b.learner.window; b.learner.phase != windows || seq != w.tried && seq != w.tested {
			b.log.push(now, b.max)
		}
	case b.rate > 0:
		was := b.levelAt(now)
		b.level = was - 1
		if now >= b.at {
			b.at, b.held = now, false
			if hold && was >= b.full && b.learner.phase <= trust {
				b.at, b.held = now+holdRefill, true
			}
		}
	}
	if b.slowStart > 0 {
		if b.inFlight >= b.slowStart { // patience ran out
			b.slowStart++
		}
		b.inFlight++
		b.lastProbe = now
	}
	return seq
}

// Left says that the request whose token was taken at taken, with hold, goes on
// the wire now. It reports whether that changes when others are ready.
func (b *Bucket) Left(taken, now Instant) (changed bool) {
	if b.max > 0 {
		if now-taken < time.Millisecond || !b.log.remove(taken) {
			return false
		}
		b.log.push(now, b.max) // it counts from when it arrives
		return true
	}
	changed = b.held && now < b.at
	if changed {
		b.at = now
	}
	b.held = false
	return changed
}

// Return gives a token back that was taken at taken and never used.
func (b *Bucket) Return(taken Instant, seq uint64, now Instant) {
	if b.rule.Learn {
		b.learner.drewNothing(seq)
	}
	switch {
	case b.max > 0:
		if w := &b.learner.window; b.log.remove(taken) && b.learner.phase == windows && taken >= w.start && w.used > 0 {
			w.used--
		}
	case b.rate > 0 && taken >= b.gate:
		// A token from before a gate is gone: the gate has said what
		// the level is.
		b.level = min(b.full, b.levelAt(now)+1)
		b.at = max(b.at, now)
	}
	b.leave(taken)
}

// leave notes that a request taken at taken is no longer on its way, and
// reports whether it had left since the gate opened.
func (b *Bucket) leave(taken Instant) bool {
	if b.slowStart == 0 || taken < b.gate {
		return false
	}
	b.inFlight = max(0, b.inFlight-1)
	return true
}

// Accepted says that the request whose token was taken at taken was answered
// and not refused. It reports whether the answer opened the bucket again
// after a gate.
func (b *Bucket) Accepted(taken Instant, seq uint64, now Instant) (opened bool) {
	if b.rule.Learn {
		if b.slowStart == 0 || taken < b.gate || 2*b.inFlight >= b.slowStart {
			b.learner.tested++
		}
		beyond := b.learner.phase == windows && seq == b.learner.window.tried
		b.learner.answered(taken, seq, now)
		b.follow(now)
		if beyond && b.learner.phase == windows {
			b.log.push(now, b.max) // it was not in the log when it might have been refused
		}
	}
	return b.answered(taken)
}

// Answered says that the request was answered, and that the answer says nothing of
// the limit: it may not have come as far as that.
func (b *Bucket) Answered(taken Instant, seq uint64) (opened bool) {
	if b.rule.Learn {
		b.learner.unclear(seq)
	}
	return b.answered(taken)
}

func (b *Bucket) answered(taken Instant) (opened bool) {
	if !b.leave(taken) {
		if b.slowStart == 0 {
			b.refusals = 0
		}
		return false
	}
	b.refusals = 0
	opened = b.probing
	b.probing = false
	b.slowStart++
	if bound := b.learner.bound(); bound > 0 {
		b.slowStart = bound
	} else if !b.rule.Unlimited() || b.rate > 0 || b.slowStart > slowStartEnd {
		b.slowStart, b.inFlight = 0, 0 // the pace governs from here on
	}
	return opened
}

// Missed says that the request whose token was taken at taken did not come as far
// as the limit.
func (b *Bucket) Missed(taken Instant, seq uint64) {
	if b.rule.Learn {
		b.learner.drewNothing(seq)
	}
	b.leave(taken)
}

// Unanswered says that no answer came for the request whose token was taken at
// taken, though it may have come as far as the limit.
func (b *Bucket) Unanswered(taken Instant, seq uint64) {
	if b.rule.Learn {
		b.learner.unclear(seq)
	}
	b.leave(taken)
}

// Abandoned says that nobody waited for the answer to the request whose token was
// taken at taken. That says nothing of the server: it counts as any other.
func (b *Bucket) Abandoned(taken Instant) { b.leave(taken) }

// Missing returns how long the gate should close for a refusal that does not say
// it, if a learner knows: two tokens' time, doubled for each refusal in a row.
func (b *Bucket) Missing(taken Instant) (wait time.Duration, ok bool) {
	if b.learner.accepted == 0 {
		return 0, false
	}
	return min(b.learner.missing()<<min(b.NextRefusal(taken), 8), time.Minute), true
}

// NextRefusal returns how many gates closed in a row before, counted for a
// refusal of a request whose token was taken at taken. Refusals of requests
// that left before the last gate closed belong to that gate.
func (b *Bucket) NextRefusal(taken Instant) int {
	if b.refusals > 0 && taken < b.gate {
		return b.refusals - 1
	}
	return b.refusals
}

// Refused says that the server refused, at now, the request whose token was
// taken at taken, and that nothing may be sent before until. It reports
// whether that closes the gate, or closes it for longer.
//
// When the gate opens, one request goes as a probe. Once that is accepted the
// others follow at the bucket's rate: what the server's bucket may have
// gathered meanwhile is left in it, because others may have drawn on it.
//
// An outage says nothing of the limit: it refuses whoever comes.
func (b *Bucket) Refused(taken Instant, seq uint64, now, until Instant, asked time.Duration, outage bool) (closed bool) {
	asked = min(asked, longestWait)
	if b.rule.Learn {
		if outage {
			b.learner.drewNothing(seq)
			b.learner.distrust()
		} else {
			b.learner.refused(taken, seq, now, until, asked)
		}
	}
	b.leave(taken)
	if taken >= b.gate || b.refusals == 0 {
		b.refusals++
	}
	if until <= b.gate || until <= now {
		return false
	}
	if now >= b.gate {
		b.closed += b.gate - b.gateFrom
		b.gateFrom = now
	}
	b.gate = until
	b.empty(until)
	b.Probe()
	return true
}

// Probe lets one request go, when the gate is open, and the others once that one
// is answered.
func (b *Bucket) Probe() { b.slowStart, b.inFlight, b.probing = 1, 0, true }

// empty makes the bucket hold one token at t, or less if it would have less, and
// refill from then on.
func (b *Bucket) empty(t Instant) {
	switch {
	case b.max > 0 && b.rule.Learn:
		// The log and the gate say it all.
	case b.max > 0:
		// As if Max requests had been spread over the window before t.
		width := b.window + WireJitter
		step := width / Instant(b.max)
		b.log.n = 0
		for i := range b.max {
			b.log.push(t-width+Instant(i)*step, b.max)
		}
	case b.rate > 0 && b.rule.Learn:
		b.level, b.at, b.held = 1, t, false // for the probe
	case b.rate > 0:
		b.level, b.at, b.held = min(1, b.levelAt(t)), t, false
	}
}

// mostOwed is more than a bucket can owe beyond its size: requests that left
// although there was no token. A state that says more is broken, and would keep
// the bucket closed for ever.
const mostOwed = 100

// Restore makes a new bucket one that lacked spent tokens, age before now.
func (b *Bucket) Restore(now Instant, spent float64, age time.Duration) {
	if !(spent < 2*b.full+mostOwed) && b.max == 0 || math.IsNaN(spent) {
		spent = 2*b.full + mostOwed + float64(b.max)
	}
	switch {
	case b.max > 0:
		// When they went is not known: at the latest, age before now.
		for range int(min(max(0, spent), float64(b.max))) {
			b.log.push(now-age, b.max)
		}
	case b.rate > 0:
		lacks := max(0, spent-b.rate*age.Seconds())
		b.level = min(b.full, b.full-lacks)
		b.at = now
		if l := &b.learner; b.rule.Learn {
			l.x = b.rule.Burst - (b.full - b.level)
			l.anchor.level = l.x
			l.anchor.variance += square(0.1*b.rule.Burst) + square(min(l.x, 0))
		}
	}
}

// Doubt takes n tokens of which nobody knows whether they were spent: it counts
// them as spent at now.
func (b *Bucket) Doubt(now Instant, n float64) {
	if !(n > 0) {
		return
	}
	l := &b.learner
	switch {
	case b.max > 0:
		for range int(math.Ceil(min(n, float64(b.max)))) {
			b.log.push(now, b.max)
		}
		if l.phase == windows {
			l.window.used += int(math.Ceil(min(n, float64(b.max))))
		}
	case b.rate > 0:
		n = min(n, b.full)
		b.level, b.at = b.levelAt(now)-n, now
		if b.rule.Learn {
			l.x -= n
			l.anchor.level -= n
			l.anchor.variance += square(n / 2)
		}
	}
}

// Gate returns until when the gate is closed, and whether it is at now.
func (b *Bucket) Gate(now Instant) (until Instant, closed bool) {
	return b.gate, now < b.gate
}

// Probing reports whether nothing was accepted since the gate closed last.
func (b *Bucket) Probing() bool { return b.probing }

// Closed returns for how long the gate was closed altogether until now.
func (b *Bucket) Closed(now Instant) time.Duration {
	return b.closed + max(0, min(now, b.gate)-b.gateFrom)
}

// longestWait is the longest Retry-After that says something of a window.
const longestWait = 366 * 24 * time.Hour

// forgetAfter is how long a bucket of which something was learned is kept unused.
const forgetAfter = 10 * time.Minute

// Idle reports whether a bucket made anew would behave as this one does, or, if
// it has learned something, whether it was not used for long.
func (b *Bucket) Idle(now Instant) bool {
	if l := &b.learner; b.rule.Learn && l.phase != trust && !(l.phase == ramp && l.wide) {
		return now >= b.gate+forgetAfter && now >= l.last+forgetAfter
	}
	if now < b.gate || b.slowStart > 0 || b.refusals > 0 {
		return false
	}
	if b.max > 0 {
		return b.log.n == 0 || b.log.at(b.log.n-1)+b.window+WireJitter <= now
	}
	return b.rule.Unlimited() || b.levelAt(now) >= b.full
}
