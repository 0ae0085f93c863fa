package headgate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// Wait says how long a permit was waited for, and why.
type Wait struct {
	// Total is the whole wait: the sum of its parts.
	Total time.Duration
	// Parts says what for: one part for each limit that held the wait up,
	// nil if there was no wait. In each instant a wait is held up by one
	// limit: the one that would have let the head of the line go last.
	Parts []WaitPart
}

// WaitPart is the part of a wait that one limit caused.
type WaitPart struct {
	// Limit is the name of the limit.
	Limit string
	// Empty is how long its bucket had no token for whoever was next: it
	// was empty, the one it had was kept for an earlier waiter who needs
	// another limit as well, or the probe behind its gate was not answered
	// yet.
	Empty time.Duration
	// RetryAfter is how long the server had asked to stay away, with the
	// jitter on top ([LimiterConfig.Spread]).
	RetryAfter time.Duration
	// Reserved is how long there was a token, and it was kept for urgent
	// calls ([Limiter.Reserve]).
	Reserved time.Duration
	// Paused is how long the limiter was paused ([Limiter.Pause]). It
	// stands with the first of the limits that the attempt draws on.
	Paused time.Duration
}

// Total returns how long the limit held the wait up.
func (p WaitPart) Total() time.Duration { return p.Empty + p.RetryAfter + p.Reserved + p.Paused }

// cause is why a limit held a wait up, and for how long.
type cause struct {
	word string
	d    time.Duration
}

func (p WaitPart) causes() [4]cause {
	return [...]cause{
		{"empty", p.Empty}, {WaitRetryAfter, p.RetryAfter},
		{WaitReserved, p.Reserved}, {WaitPaused, p.Paused},
	}
}

// Limit returns the name of the limit that was waited for the longest, "" if
// there was no wait.
func (w Wait) Limit() string {
	if len(w.Parts) == 0 {
		return ""
	}
	return slices.MaxFunc(w.Parts, func(a, b WaitPart) int { return cmp.Compare(a.Total(), b.Total()) }).Limit
}

// RetryAfter returns the part of the wait in which the server had asked to stay
// away.
func (w Wait) RetryAfter() (sum time.Duration) {
	for _, p := range w.Parts {
		sum += p.RetryAfter
	}
	return sum
}

// String explains the wait:
//
//	waited 3.1 s: token.rate.per.minute empty 2.4 s, Retry-After 0.7 s
func (w Wait) String() string {
	var b strings.Builder
	b.WriteString("waited " + inWords(w.Total))
	separator := ": "
	for _, p := range w.Parts {
		b.WriteString(separator + p.Limit)
		separator = ", "
		between := " "
		for _, cause := range p.causes() {
			if cause.d > 0 {
				b.WriteString(between + cause.word + " " + inWords(cause.d))
				between = ", "
			}
		}
		separator = "; "
	}
	return b.String()
}

// inWords writes a duration with as many digits as one wants to read.
func inWords(d time.Duration) string {
	decimal := func(unit time.Duration, name string) string {
		return strconv.FormatFloat(float64(d)/float64(unit), 'f', 1, 64) + " " + name
	}
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= 100*time.Millisecond:
		return decimal(time.Second, "s")
	}
	return decimal(time.Millisecond, "ms")
}

// ledger is what a lane knows of its waits: for how long each of its accounts
// has held up the head of the line. Whoever waits in the lane waits for its
// head, so that the difference between two readings is what a waiter waited for
// in between.
type ledger struct {
	held []WaitPart     // by account, up to the instant upTo
	upTo bucket.Instant // while nobody waits, what is in it means nothing
	by   int            // the account that has held the head up since
	gate bucket.Instant // until when its gate is closed
	why  why            // what holds it up when that is open
}

// why is what holds up the head of a line whose gate is open.
type why uint8

const (
	whyEmpty why = iota
	whyReserved
	whyPaused // also while the gate is closed
)

func (t turn) why() why {
	if t.reserved {
		return whyReserved
	}
	return whyEmpty
}

// settle brings the ledger up to now, and returns the instant it is at: now,
// unless somebody who read the clock later was quicker.
func (g *ledger) settle(now bucket.Instant) bucket.Instant {
	d := now - g.upTo
	if d <= 0 {
		return g.upTo
	}
	held := &g.held[g.by]
	closed := max(0, min(d, g.gate-g.upTo))
	g.upTo = now
	switch g.why {
	case whyPaused:
		held.Paused += d
		return now
	case whyReserved:
		held.Reserved += d - closed
	default:
		held.Empty += d - closed
	}
	held.RetryAfter += closed
	return now
}

// heldUp notes that from now on the head of the line waits for turn t.
func (ln *lane) heldUp(now bucket.Instant, t turn, why why) {
	ln.settle(now)
	ln.by, ln.why = slices.Index(ln.accounts, t.by), why
	ln.gate, _ = t.by.bucket.Gate(now)
}

// since returns what p has come to be since it was earlier.
func (p WaitPart) since(earlier WaitPart) WaitPart {
	p.Empty -= earlier.Empty
	p.RetryAfter -= earlier.RetryAfter
	p.Reserved -= earlier.Reserved
	p.Paused -= earlier.Paused
	return p
}

// readLedger notes what the ledger says as w joins its lane. It returns the
// instant from which on w waits.
func (w *waiter) readLedger(now bucket.Instant) bucket.Instant {
	now = w.lane.settle(now)
	w.parts = append(w.one[:0], w.lane.held...)
	return now
}

// closeLedger makes w.parts what w has waited for in its lane up to now. It
// returns the instant at which that ends.
func (w *waiter) closeLedger(now bucket.Instant) bucket.Instant {
	now = w.lane.settle(now)
	for i, held := range w.lane.held {
		w.parts[i] = held.since(w.parts[i])
	}
	return now
}

// soFar returns what w, which is in line, has waited until now.
func (w *waiter) soFar(now bucket.Instant) Wait {
	still := *w
	still.parts = slices.Clone(w.parts)
	still.went = still.closeLedger(now)
	return still.waited()
}

// waited returns the wait of w, which is over.
func (w *waiter) waited() Wait {
	if w.went == w.came {
		return Wait{}
	}
	parts := slices.DeleteFunc(w.parts, func(p WaitPart) bool { return p.Total() == 0 })
	return Wait{Total: w.went - w.came, Parts: parts}
}
