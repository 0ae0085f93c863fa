package headgate

import (
	"errors"
	"fmt"
	"time"
)

// LimitError says that a request was not sent, because it could not have gone
// in time. It is what [Limiter.Take] returns, and what a [Transport] returns
// when it has no answer of the server to hand back instead.
type LimitError struct {
	// Limit is the name of the limit that stood in the way.
	Limit string
	// Wait is how long the request would have had to wait, from when it
	// was refused; At is when it could have gone.
	Wait time.Duration
	At   time.Time
	// RetryAfter is how long the server asked everybody on the limit to
	// stay away, as far as it was not over yet; 0 if it did not.
	RetryAfter time.Duration
	// Waited is how long the request had waited when it was refused, and
	// what for; zero if it was refused without waiting.
	Waited Wait
	// Err is the end of the context that cut the wait short, or nil if
	// the request was refused without waiting.
	Err error
}

// Error says which limit, how long and until when.
func (e *LimitError) Error() string {
	s := fmt.Sprintf("limit %s: not sent: would wait %v, until %s",
		e.Limit, e.Wait.Round(time.Millisecond), e.At.Format("15:04:05.000"))
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (the server said to stay away for %v more)", e.RetryAfter.Round(time.Millisecond))
	}
	if e.Waited.Total > 0 {
		s += "; " + e.Waited.String()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *LimitError) Unwrap() error { return e.Err }

// ErrAttemptTimeout is the cause with which to cancel the context of a request
// ([context.WithCancelCause]) when an attempt has stayed unanswered for too long
// but the call is still wanted: the verdict then is that of any attempt that was
// not answered. A context that ends for another reason ends the call.
var ErrAttemptTimeout = errors.New("the attempt was not answered in time")

// UnknownError says that a request was sent and no answer came: nobody knows
// whether it was executed. Sending it again may execute it twice.
type UnknownError struct {
	// Unanswered is how many attempts may have been executed.
	Unanswered int
	// Err is how the last of them ended.
	Err error
}

// Error says that the outcome is unknown, and why.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("outcome unknown, may have been executed: %v", e.Err)
}

// Unwrap returns Err.
func (e *UnknownError) Unwrap() error { return e.Err }
