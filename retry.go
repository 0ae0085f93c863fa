package headgate

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// Backoff is how the wait grows from one retry to the next.
type Backoff int

const (
	// Exponential doubles the wait with each retry.
	Exponential Backoff = iota
	// Constant waits as long each time.
	Constant
)

var backoffWords = []string{"exponential", "constant"}

// String returns the word that configuration uses.
func (b Backoff) String() string { return backoffWords[b] }

// MarshalText returns the word.
func (b Backoff) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads the word: exponential or constant.
func (b *Backoff) UnmarshalText(text []byte) error { return fromWord(b, backoffWords, text) }

// Jitter is how the wait before a retry is drawn by lot, so that those that
// failed together do not come back together. The names and formulas are those
// of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
// 2015.
type Jitter int

const (
	// FullJitter waits between nothing and all of the backoff.
	FullJitter Jitter = iota
	// EqualJitter waits between half and all of it.
	EqualJitter
	// DecorrelatedJitter waits between the base and three times the latest
	// wait.
	DecorrelatedJitter
	// NoJitter waits for exactly the backoff.
	NoJitter
)

var jitterWords = []string{"full", "equal", "decorrelated", "none"}

// String returns the word that configuration uses.
func (j Jitter) String() string { return jitterWords[j] }

// MarshalText returns the word.
func (j Jitter) MarshalText() ([]byte, error) { return []byte(j.String()), nil }

// UnmarshalText reads the word: full, equal, decorrelated or none.
func (j *Jitter) UnmarshalText(text []byte) error { return fromWord(j, jitterWords, text) }

// Delivery is what to do with a request that left and was not usably answered:
// it may have been executed (no answer, a reset, a time-out, 500, 502, 504, 503
// without Retry-After). It makes no difference for methods that HTTP calls
// idempotent, which are always sent again (RFC 9110 §9.2.2).
type Delivery int

const (
	// AtMostOnce does not send it again: it may be lost, never doubled.
	AtMostOnce Delivery = iota
	// AtLeastOnce sends it again after a backoff: it may be executed twice,
	// which [Tries.Unanswered] counts.
	AtLeastOnce
)

var deliveryWords = []string{"at-most-once", "at-least-once"}

// String returns the word that configuration uses.
func (d Delivery) String() string { return deliveryWords[d] }

// MarshalText returns the word.
func (d Delivery) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the word: at-most-once or at-least-once.
func (d *Delivery) UnmarshalText(text []byte) error { return fromWord(d, deliveryWords, text) }

// Retry says when to send again. The zero value is the default everywhere.
type Retry struct {
	// RetryAfter is how long a refusal without a usable Retry-After closes
	// the gate: doubled for each refusal in a row up to Max, unless Backoff
	// is Constant, plus up to a quarter as jitter. 0 is the time of two
	// tokens (at least 200 ms) where the limit's rate was learned, else 5 s.
	RetryAfter time.Duration
	// MaxRetryAfter is the longest Retry-After that a call waits out. A
	// call that meets a longer one gets a *[LimitError] with the server's
	// value. 0 is 15 minutes. Values above 31 days count as missing.
	MaxRetryAfter time.Duration

	// MaxRetries is how often a request is sent again after a failure that
	// is not a refusal: refusals are bounded by the context and MaxWait
	// alone. 0 is 5, below 0 is never.
	MaxRetries int
	// Backoff, Base, Max and Jitter say how long to wait before that: Base
	// (0 is 1 s) doubled for each retry up to Max (0 is a minute).
	Backoff Backoff
	Base    time.Duration
	Max     time.Duration
	Jitter  Jitter

	// MaxWait bounds how long a call waits altogether, for permits and
	// between attempts. 0: the context alone bounds it.
	MaxWait time.Duration
}

// Validate reports what is wrong with r, naming the field, or nil.
func (r Retry) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"RetryAfter", r.RetryAfter}, {"MaxRetryAfter", r.MaxRetryAfter},
		{"Base", r.Base}, {"Max", r.Max}, {"MaxWait", r.MaxWait},
	} {
		if d.value < 0 {
			return fmt.Errorf("retry: %s is %v, must not be negative", d.name, d.value)
		}
	}
	switch {
	case r.Backoff < 0 || int(r.Backoff) >= len(backoffWords):
		return fmt.Errorf("retry: Backoff is %d, must be Exponential or Constant", r.Backoff)
	case r.Jitter < 0 || int(r.Jitter) >= len(jitterWords):
		return fmt.Errorf("retry: Jitter is %d, must be Full-, Equal-, Decorrelated- or NoJitter", r.Jitter)
	}
	return nil
}

// filled returns r with its defaults in place of zeros.
func (r Retry) filled() Retry {
	r.RetryAfter = cmp.Or(r.RetryAfter, 5*time.Second)
	r.MaxRetryAfter = cmp.Or(r.MaxRetryAfter, 15*time.Minute)
	r.MaxRetries = max(0, cmp.Or(r.MaxRetries, 5))
	r.Base = cmp.Or(r.Base, time.Second)
	r.Max = cmp.Or(r.Max, time.Minute)
	return r
}

// missing returns how long the gate closes for a refusal that does not say it.
func (r *Retry) missing(refusals int) time.Duration {
	f := r.filled()
	d := f.grown(f.RetryAfter, refusals)
	if f.Jitter == NoJitter {
		return d
	}
	return d + uniform(d/4)
}

// grown returns d after n doublings, at most Max (but no less than d).
func (r Retry) grown(d time.Duration, n int) time.Duration {
	if r.Backoff == Constant {
		return d
	}
	for limit := max(r.Max, d); n > 0; n-- {
		if d > limit/2 {
			return limit
		}
		d *= 2
	}
	return d
}

// backoff returns how long to wait before retry n, from 0, if the wait before
// the one before was last.
func (r *Retry) backoff(n int, last time.Duration) time.Duration {
	f := r.filled()
	d := f.grown(f.Base, n)
	switch f.Jitter {
	case FullJitter:
		return uniform(d)
	case EqualJitter:
		return d/2 + uniform(d-d/2)
	case DecorrelatedJitter:
		return min(f.Max, f.Base+uniform(max(0, 3*max(last, f.Base)-f.Base)))
	}
	return d
}

// uniform returns a uniform duration from 0 to d.
func uniform(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d + 1)
}

// Tries counts what happened to one call so far.
type Tries struct {
	// Sent counts attempts that were put on the wire.
	Sent int
	// Refused counts answers that a limit refused: surely not executed.
	Refused int
	// Retries counts the attempts made after other failures.
	Retries int
	// Unanswered counts attempts that may have been executed although no
	// usable answer came. If it is above 0 and the call succeeded, it may
	// have been executed more than once.
	Unanswered int
	// Unauthorized counts the 401 answers in a row.
	Unauthorized int
	// LastBackoff is the latest wait that Retry chose.
	LastBackoff time.Duration
	// Waits says how long the call waited, by cause: the name of a limit
	// whose bucket was empty (see [WaitPart]), or one of the constants
	// below. Nil if it did not wait.
	Waits map[string]time.Duration
}

// The causes in [Tries.Waits] that are no limit's name.
const (
	WaitRetryAfter = "Retry-After"
	WaitReserved   = "reserved" // kept for urgent calls
	WaitPaused     = "paused"
	WaitBackoff    = "backoff"
	WaitLogin      = "login"
)

// waited notes a wait.
func (t *Tries) waited(cause string, d time.Duration) {
	if d <= 0 {
		return
	}
	if t.Waits == nil {
		t.Waits = map[string]time.Duration{}
	}
	t.Waits[cause] += d
}

// waitedFor notes the wait for a permit.
func (t *Tries) waitedFor(w Wait) {
	for _, p := range w.Parts {
		t.waited(WaitRetryAfter, p.RetryAfter)
		t.waited(WaitReserved, p.Reserved)
		t.waited(WaitPaused, p.Paused)
		t.waited(p.Limit, p.Empty)
	}
}

// Waited returns the sum of Waits.
func (t *Tries) Waited() (sum time.Duration) {
	for _, d := range t.Waits {
		sum += d
	}
	return sum
}

// Action is what a [Verdict] says to do.
type Action int

const (
	// Return: the answer, or the error, is final.
	Return Action = iota
	// Again: send again, no sooner than after Verdict.After.
	Again
	// Unknown: the attempt may have been executed, nobody knows, and it is
	// not to be sent again.
	Unknown
	// Unsent: nothing left; there was no permit or no token in time.
	Unsent
)

// Verdict is what to do after an attempt.
type Verdict struct {
	Action Action
	After  time.Duration
}

// sentence is what a verdict is passed on.
type sentence struct {
	Observation
	err        error
	notSent    bool // err came before anything left
	final      bool // err will come every time
	idempotent bool
	canLogIn   bool
	delivery   Delivery
}

// verdict decides what to do after an attempt and counts it in t.
func (r *Retry) verdict(s sentence, t *Tries) Verdict {
	mayHaveRun := false
	if s.Status != 0 && s.Status != http.StatusUnauthorized {
		t.Unauthorized = 0
	}
	switch {
	case s.Refused:
		t.Refused++
		return Verdict{Action: Again} // the gate says when
	case s.Status == http.StatusUnauthorized:
		t.Unauthorized++
		if s.canLogIn && t.Unauthorized == 1 {
			return Verdict{Action: Again}
		}
		return Verdict{Action: Return}
	case s.err != nil:
		mayHaveRun = !s.notSent && !s.idempotent
	case s.Status < 500 || s.Status == http.StatusNotImplemented || s.Status == http.StatusHTTPVersionNotSupported:
		return Verdict{Action: Return}
	default:
		mayHaveRun = !s.idempotent
	}
	gaveUp := Verdict{Action: Return}
	if mayHaveRun {
		t.Unanswered++
		gaveUp = Verdict{Action: Unknown}
		if s.delivery != AtLeastOnce {
			return gaveUp
		}
	}
	if s.final || t.Retries >= r.filled().MaxRetries {
		return gaveUp
	}
	t.LastBackoff = r.backoff(t.Retries, t.LastBackoff)
	t.Retries++
	return Verdict{Action: Again, After: t.LastBackoff}
}
