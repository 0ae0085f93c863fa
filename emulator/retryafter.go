package emulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// RetryAfterMode is the form of a Retry-After header. What it announces is
// built from the real time: how long after the refusal the limit would accept
// the request, or the outage ends.
type RetryAfterMode string

// The values of [RetryAfterMode].
const (
	RetryAfterCeil        RetryAfterMode = "ceil"        // whole seconds, rounded up: at least 1, never too short
	RetryAfterExact       RetryAfterMode = "exact"       // fractional seconds, to the nanosecond
	RetryAfterDate        RetryAfterMode = "date"        // an HTTP date, rounded up to the next whole second
	RetryAfterFluctuating RetryAfterMode = "fluctuating" // whole seconds, uniform from RetryAfterMin to RetryAfterMax, whatever is real
	RetryAfterShort       RetryAfterMode = "short"       // fractional seconds, half of what is real: not enough
	RetryAfterShortWhole  RetryAfterMode = "short-whole" // whole seconds, half of what is real, rounded up: not enough where more than one is real
	RetryAfterZero        RetryAfterMode = "zero"        // 0
	RetryAfterNegative    RetryAfterMode = "negative"    // -5
	RetryAfterHuge        RetryAfterMode = "huge"        // 10000000000, which overflows a wait in nanoseconds
	RetryAfterGarbage     RetryAfterMode = "garbage"     // one of several texts that are no number and no date
	RetryAfterAbsent      RetryAfterMode = "absent"      // no header
)

func (m RetryAfterMode) valid() bool {
	return slices.Contains([]RetryAfterMode{RetryAfterCeil, RetryAfterExact, RetryAfterDate, RetryAfterFluctuating, RetryAfterShort, RetryAfterShortWhole,
		RetryAfterZero, RetryAfterNegative, RetryAfterHuge, RetryAfterGarbage, RetryAfterAbsent}, m)
}

// MessageForm is the form of a 429's message.
type MessageForm string

// The values of [MessageForm].
const (
	// MessageSame says the seconds as the header does; the real ones, rounded
	// up, where the header is a date or absent.
	MessageSame MessageForm = "same"
	// MessageReal says the real seconds, rounded up, whatever the header says.
	MessageReal MessageForm = "real"
	// MessageNone says no seconds.
	MessageNone MessageForm = "none"
	// MessageOlder is the platform's older form: the limit's value and its
	// window, which is no time to wait, and the code too.many.requests.
	MessageOlder MessageForm = "older"
)

func (m MessageForm) valid() bool {
	return slices.Contains([]MessageForm{MessageSame, MessageReal, MessageNone, MessageOlder}, m)
}

var garbage = []string{"soon", "NaN", "Inf", "12 minutes", "1;2", "--3", "0x1F", "Thu, 99 Foo 2025 25:61:61 GMT"}

// announcement is what an answer says about waiting.
type announcement struct {
	header string        // the value of Retry-After; empty is absent
	number string        // the number for the message
	hold   time.Duration // how long it asks to wait; 0 if it asks nothing that counts
	fixed  bool          // hold runs from the decision (a date), not from the writing
}

// announce builds the announcement of a wait in a mode.
func (c *Config) announce(mode RetryAfterMode, wait time.Duration, rng *rand.Rand) announcement {
	whole := int64(math.Ceil(wait.Seconds()))
	text := strconv.FormatInt(whole, 10)
	switch mode {
	case RetryAfterExact, RetryAfterShort:
		if mode == RetryAfterShort {
			wait /= 2
		}
		text = strconv.FormatFloat(wait.Seconds(), 'f', -1, 64)
		return announcement{header: text, number: text, hold: wait}
	case RetryAfterDate:
		now := time.Now()
		date := now.Add(wait).Truncate(time.Second)
		if date.Before(now.Add(wait)) {
			date = date.Add(time.Second)
		}
		return announcement{header: date.UTC().Format(http.TimeFormat), number: text, hold: date.Sub(now), fixed: true}
	case RetryAfterShortWhole:
		whole = int64(math.Ceil(wait.Seconds() / 2))
		text = strconv.FormatInt(whole, 10)
	case RetryAfterFluctuating:
		lo, hi := int64(c.RetryAfterMin/time.Second), int64(c.RetryAfterMax/time.Second)
		whole = lo + rng.Int64N(hi-lo+1)
		text = strconv.FormatInt(whole, 10)
	case RetryAfterZero:
		return announcement{header: "0", number: "0"}
	case RetryAfterNegative:
		return announcement{header: "-5", number: "-5"}
	case RetryAfterHuge:
		return announcement{header: "10000000000", number: "10000000000"}
	case RetryAfterGarbage:
		text = garbage[rng.IntN(len(garbage))]
		return announcement{header: text, number: text}
	case RetryAfterAbsent:
		return announcement{number: text}
	}
	return announcement{header: text, number: text, hold: time.Duration(whole) * time.Second}
}

// message is a 429's message and code for an announcement of a wait.
func (f MessageForm) message(a announcement, wait time.Duration, value int, window time.Duration) (message, code string) {
	const exceeded = "Rate limit exceeded the maximum"
	number := a.number
	switch f {
	case MessageOlder:
		return fmt.Sprintf("%s [%d] requests within [%d] seconds", exceeded, value, int64(window.Seconds())), "too.many.requests"
	case MessageNone:
		return exceeded + ".", "too.many.requests.retry.after"
	case MessageReal:
		number = strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10)
	}
	return exceeded + ". Retry the request in [" + number + "] seconds", "too.many.requests.retry.after"
}
