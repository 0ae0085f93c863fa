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
}

// settle brings the ledger up to now, and returns the instant it is at: now,
// unless somebody who read the clock later was quicker.
func (g *ledger) settle(now bucket.Instant) bucket.Instant {
	d := now - g.upTo
	if d <= 0 {
		return g.upTo
	}
	closed := max(0, min(d, g.gate-g.upTo))
	g.held[g.by].RetryAfter += closed
	g.held[g.by].Empty += d - closed
	g.upTo = now
	return now
}

// heldUp notes that from now on the head of the line waits for by.
func (ln *lane) heldUp(now bucket.Instant, by *account) {
	ln.settle(now)
	ln.by = slices.Index(ln.accounts, by)
	ln.gate, _ = by.bucket.Gate(now)
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
		w.parts[i].Empty = held.Empty - w.parts[i].Empty
		w.parts[i].RetryAfter = held.RetryAfter - w.parts[i].RetryAfter
	}
	return now
}

// waited returns the wait of w, which is over.
func (w *waiter) waited() Wait {
	if w.went == w.came {
		return Wait{}
	}
	parts := slices.DeleteFunc(w.parts, func(p WaitPart) bool { return p.Total() == 0 })
	return Wait{Total: w.went - w.came, Parts: parts}
}
