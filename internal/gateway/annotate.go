package gateway

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate"
)

// The header fields by which an answer says what happened to its call.
const (
	fieldWait        = "Headgate-Wait"           // for how long it waited, and for what
	fieldAttempts    = "Headgate-Attempts"       // how often it was sent
	fieldMaybe       = "Headgate-Maybe-Executed" // how many of these may have been executed, unanswered
	fieldExecution   = "Headgate-Execution"      // the id of a call that is kept
	fieldCorrelation = "Headgate-Correlation-Id" // what the gateway's log calls it

	fieldRateLimit       = "RateLimit" // draft-ietf-httpapi-ratelimit-headers
	fieldRateLimitPolicy = "RateLimit-Policy"
)

// annotate sets the fields of an answer.
func (c *held) annotate(h http.Header) {
	h[fieldWait] = []string{waitField(c.tries.Waits)}
	h[fieldAttempts] = []string{strconv.Itoa(c.tries.Sent)}
	if c.tries.Unanswered > 0 {
		h[fieldMaybe] = []string{strconv.Itoa(c.tries.Unanswered)}
	}
	if len(h["Ratelimit"]) == 0 && len(h["Ratelimit-Policy"]) == 0 {
		c.org.rateLimits(h)
	}
}

// waitField says how long a call waited and for what: a list of structured
// fields (RFC 9651), the longest first, as
//
//	"token.rate.per.minute";s=2.4, "Retry-After";s=0.7
//
// which is empty if it did not wait.
func waitField(waits map[string]time.Duration) string {
	if len(waits) == 0 {
		return `"none";s=0`
	}
	causes := make([]string, 0, len(waits))
	for cause := range waits {
		causes = append(causes, cause)
	}
	slices.SortFunc(causes, func(a, b string) int {
		return cmp.Or(cmp.Compare(waits[b], waits[a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	for i, cause := range causes {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoted(cause))
		b.WriteString(";s=")
		b.WriteString(strconv.FormatFloat(waits[cause].Seconds(), 'f', 3, 64))
	}
	return b.String()
}

// quoted is s as a string of structured fields: what can't stand in one is left
// out.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= ' ' && c <= '~':
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// rateLimits are the fields RateLimit and RateLimit-Policy, made anew now and
// then: to ask the limiter for each answer would cost more than it tells.
type rateLimits struct {
	at            time.Time
	limit, policy []string
}

const rateLimitsAge = 100 * time.Millisecond

// rateLimits sets the fields that say where the limits of the org's token stand.
func (o *org) rateLimits(h http.Header) {
	now := time.Now()
	f := o.fields.Load()
	if f == nil || now.Sub(f.at) > rateLimitsAge {
		f = fieldsOf(o.limiter.Estimates(), now)
		o.fields.Store(f)
	}
	if f.limit != nil {
		h[http.CanonicalHeaderKey(fieldRateLimit)] = f.limit
		h[http.CanonicalHeaderKey(fieldRateLimitPolicy)] = f.policy
	}
}

// fieldsOf says of each limit how much may be sent in which time, how much could
// go now (r), and in how many seconds all of it could (t).
func fieldsOf(estimates []headgate.Estimate, now time.Time) *rateLimits {
	f := &rateLimits{at: now}
	var limits, policies []string
	for _, e := range estimates {
		if e.Rate <= 0 && e.Window == 0 || e.Limit == "login" || e.Path != "" {
			continue
		}
		quota, window := e.Burst, e.Window.Seconds()
		if e.Window == 0 {
			quota = max(quota, 1)
			window = quota / e.Rate
		}
		level := min(max(0, e.Level), quota)
		reset := max((quota-level)/quota*window, e.RetryAfter.Seconds())
		name := quoted(e.Limit)
		policies = append(policies, name+";q="+whole(quota)+";w="+whole(max(1, window)))
		limits = append(limits, name+";r="+whole(level)+";t="+whole(reset+0.999))
		if len(limits) == 8 {
			break // as much as anyone reads
		}
	}
	if len(limits) > 0 {
		f.limit, f.policy = []string{strings.Join(limits, ", ")}, []string{strings.Join(policies, ", ")}
	}
	return f
}

// whole is n as an integer of structured fields, rounded down.
func whole(n float64) string {
	return strconv.FormatInt(int64(min(max(n, 0), 1e15)), 10)
}
