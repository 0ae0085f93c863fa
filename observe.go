package headgate

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/headgate/headgate/internal/bucket"
	"github.com/headgate/headgate/internal/ratehdr"
)

// Observation is what an answer says about the limits.
type Observation struct {
	// Status is the HTTP status, 0 if no answer came.
	Status int
	// Refused: a limit or an outage turned the request away, and it was
	// surely not executed.
	Refused bool
	// RetryAfter is how long the server wants everybody to stay away, if
	// HasRetryAfter.
	RetryAfter    time.Duration
	HasRetryAfter bool
	// Limit is the name of the limit that refused, "" if the answer does
	// not say.
	Limit string
	// Alias is another name for Limit, by which it may be configured.
	Alias string
	// Value is what the server says that limit is, in requests a second; 0
	// if it does not.
	Value float64
	// Missing is asked for the wait when a refusal has no Retry-After; its
	// argument is how many refusals in a row came before. Nil: a limit that
	// learns takes the time of two tokens, another one 5 s, doubled each
	// time up to a minute.
	Missing func(refusals int) time.Duration

	orLearned bool // what a limit has learned goes before Missing
	unsent    bool // no answer came, and nothing had left
	abandoned bool // no answer came because nobody waited for it
}

// wait returns how long the gate of b closes for a refusal of a request that was
// taken at taken, and how much of that the server has asked for.
func (o Observation) wait(b *bucket.Bucket, taken bucket.Instant) (wait, asked time.Duration) {
	n := b.NextRefusal(taken)
	switch {
	case o.HasRetryAfter && o.RetryAfter > 0:
		wait = min(o.RetryAfter, ratehdr.Max)
		return wait, wait
	case o.HasRetryAfter:
		// "At once" from a server that has just refused: believe it, but
		// less each time.
		return 50 * time.Millisecond << min(n, 6), 0
	}
	missing, orLearned := o.Missing, o.orLearned
	if missing == nil {
		missing, orLearned = new(Retry).missing, true
	}
	if wait, ok := b.Missing(taken); ok && orLearned && o.Status == http.StatusTooManyRequests {
		return wait + uniform(wait/4), 0
	}
	return missing(n), 0
}

// maxPeek is how much of an answer's body is looked at.
const maxPeek = 64 << 10

// ReadAnswer reads what any HTTP API says: 429 is a refusal, and so is 503 with
// Retry-After. Retry-After may be whole or fractional seconds or an HTTP date
// (RFC 9110 §10.2.3); if it is missing or makes no sense, the seconds that the
// message in the body names count ("Retry the request in [42] seconds").
//
// The body stays readable from its beginning.
func ReadAnswer(resp *http.Response) Observation {
	o := Observation{Status: resp.StatusCode}
	if o.Status != http.StatusTooManyRequests && o.Status != http.StatusServiceUnavailable {
		return o
	}
	o.RetryAfter, o.HasRetryAfter = ratehdr.RetryAfter(resp.Header, time.Now())
	if o.Status == http.StatusServiceUnavailable {
		o.Refused = o.HasRetryAfter
		return o
	}
	o.Refused = true
	if !o.HasRetryAfter {
		o.RetryAfter, o.HasRetryAfter = ratehdr.InMessage(Peek(resp))
	}
	return o
}

// Peek returns the beginning of the answer's body, at most 64 KiB, and leaves
// the body readable from its beginning. What could not be read is missing; the
// error comes again when the body is read.
func Peek(resp *http.Response) []byte {
	if p, ok := resp.Body.(*peeked); ok {
		return p.prefix
	}
	if resp.Body == nil || resp.Body == http.NoBody {
		return nil
	}
	prefix, err := io.ReadAll(io.LimitReader(resp.Body, maxPeek))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failing{err}
	}
	resp.Body = &peeked{
		prefix: prefix,
		Reader: io.MultiReader(bytes.NewReader(prefix), rest),
		Closer: resp.Body,
	}
	return prefix
}

// peeked is a body whose beginning was read already.
type peeked struct {
	prefix []byte
	io.Reader
	io.Closer
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// EventKind says what an [Event] is about.
type EventKind int

// The kinds of events.
const (
	_ EventKind = iota
	// PermitWaited: a permit was granted after Wait; Limit is the one that
	// it was waited for the longest, and Parts says all of it.
	PermitWaited
	// Sent: attempt number Attempt leaves.
	Sent
	// Answered: it was answered with Status, or failed with Err, after Wait.
	Answered
	// GateClosed: Limit refused with Status; nobody on it is sent for Wait.
	GateClosed
	// GateOpened: the probe behind the gate of Limit was accepted.
	GateOpened
	// Retried: the request is to be sent again, no sooner than after Wait.
	Retried
	// GaveUp: it is not sent again although it failed.
	GaveUp
	// LimitFound: a refusal named Limit, of which nobody knew that requests
	// to Path draw on it. In Path, "*" stands for an identifier.
	LimitFound
)

var eventWords = [...]string{"", "permit waited", "sent", "answered", "gate closed", "gate opened", "retried", "gave up", "limit found"}

// String returns the kind in words.
func (k EventKind) String() string { return eventWords[k] }

// Event is one thing that happened on the way of a call. Fields that do not
// apply to its kind are zero. It holds no secret: no header, query or body.
type Event struct {
	Kind         EventKind
	Limit        string
	Wait         time.Duration
	RetryAfter   time.Duration // the part of Wait that the server asked for
	Parts        []WaitPart    // what Wait was for
	Attempt      int           // from 1
	Method, Path string
	Status       int
	Err          error
}

// LogValue returns the fields that are set.
func (e Event) LogValue() slog.Value {
	var attrs []slog.Attr
	add := func(set bool, a slog.Attr) {
		if set {
			attrs = append(attrs, a)
		}
	}
	add(e.Limit != "", slog.String("limit", e.Limit))
	add(e.Wait != 0, slog.Duration("wait", e.Wait))
	add(e.RetryAfter != 0, slog.Duration("retry_after", e.RetryAfter))
	if e.Parts != nil {
		attrs = append(attrs, slog.String("why", Wait{e.Wait, e.Parts}.String()))
	}
	add(e.Attempt != 0, slog.Int("attempt", e.Attempt))
	add(e.Method != "", slog.String("method", e.Method))
	add(e.Path != "", slog.String("path", e.Path))
	add(e.Status != 0, slog.Int("status", e.Status))
	if e.Err != nil {
		attrs = append(attrs, slog.String("err", e.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// Observer is told what happens: metrics and logs hang on it. It is called from
// many goroutines at once, on the way of the call, and must not block.
type Observer func(Event)

func (o Observer) emit(e Event) {
	if o != nil && e.Kind != 0 {
		o(e)
	}
}
