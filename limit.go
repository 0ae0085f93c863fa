package headgate

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// Per says what a limit counts: requests that have it in common draw on the
// same bucket.
type Per int

const (
	// PerToken limits count the requests made with one access token, or
	// with one credential when the transport logs in itself: a token that
	// was renewed goes on with the bucket of the one before.
	PerToken Per = iota
	// PerClient limits count the requests of one OAuth client.
	PerClient
	// PerOrg limits count all requests to one organization.
	PerOrg
	// PerPath limits count the requests to one path of one organization.
	// Segments that look like an identifier (a UUID, a number) count as
	// the same path.
	PerPath
)

var perWords = [...]string{"token", "client", "org", "path"}

// String returns the word that configuration uses: token, client, org, path.
func (p Per) String() string {
	if p < 0 || int(p) >= len(perWords) {
		return "Per(" + strconv.Itoa(int(p)) + ")"
	}
	return perWords[p]
}

// MarshalText returns the word.
func (p Per) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the word.
func (p *Per) UnmarshalText(text []byte) error { return fromWord(p, perWords[:], text) }

// fromWord sets an enumeration from the list of its words.
func fromWord[E ~int](e *E, words []string, text []byte) error {
	for i, w := range words {
		if w == string(text) {
			*e = E(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(words, ", "))
}

// MaxWindow is the largest Max of a windowed limit.
const MaxWindow = 1_000_000

// Limit is one rule of the server: a token bucket (Rate and Burst) or a window
// (Max and Window), never both, or neither of them: then nothing is told, and it
// is learned from a careful start. See [Learn] and [PerTime].
//
// What is told is where it starts, unless Learn is LearnOff: a server that gives
// less or more, that others draw on, or that changes, is followed.
//
// A little of the burst is held in hand (a tenth, at most one token and what
// refills in 25 ms), because requests arrive less evenly than they are sent
// and the server refuses the one that arrives too early. A window is kept
// 25 ms longer for the same reason.
type Limit struct {
	// Name is what the server calls the limit, for a 429 that names it and
	// for whoever reads why a call waits. Required.
	Name string
	// Per is what the limit counts. The zero value is PerToken.
	Per Per
	// Match restricts the limit to some paths: "*" stands for one segment,
	// and a pattern that ends in "/" covers everything below. Empty covers
	// all paths.
	Match string

	// Rate is how many tokens a second the bucket gains: above 0.
	Rate float64
	// Burst is how many tokens the full bucket holds: at least 1.
	Burst float64

	// Max is how many requests fit into any Window: 1 to MaxWindow. This
	// is right for a server with a sliding window and for one with fixed
	// windows, wherever they begin.
	Max int
	// Window is the length of the window: above 0.
	Window time.Duration

	// Learn says whether what the server does goes over what is told here.
	// The zero value is LearnOn.
	Learn Learning
	// Ceiling is a rate, in requests a second, that is never exceeded
	// whatever is learned: requests are so far apart, those of a burst
	// too. 0 is none. It goes with LearnOn.
	Ceiling float64
}

// Learning says whether a limit is learned from what the server does.
type Learning int

const (
	// LearnOn starts from what was told and follows the server: a limit
	// that is lower, that others draw on, or that changes, is kept to, and
	// about once in 500 requests a little more is tried. What is told as a
	// window may turn out to be a bucket. A told burst is spread over a
	// tenth of a second. See docs/learning.md.
	LearnOn Learning = iota
	// LearnOff keeps to what was told, and closes the gate when refused.
	LearnOff
)

var learningWords = []string{"on", "off"}

// String returns the word that configuration uses: on, off.
func (l Learning) String() string { return learningWords[l] }

// MarshalText returns the word.
func (l Learning) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the word: on or off.
func (l *Learning) UnmarshalText(text []byte) error { return fromWord(l, learningWords, text) }

// Learn returns a limit of which nothing is known but its name: it begins with
// few requests in flight, and finds out.
func Learn(name string) Limit { return Limit{Name: name} }

// Even returns a rate and a burst that keep any span of per free of more than
// n requests. It is right for a server of which only "n per minute" is known,
// whether it counts by token bucket, fixed or sliding window: of n, a twentieth
// (but at least one request) is burst and the rest refills evenly.
func Even(n float64, per time.Duration) (rate, burst float64) {
	return 0.95 * n / per.Seconds(), max(1, n/20)
}

// PerTime returns a limit of which only "n per minute", or per any other time, is
// known. What is kept to is right whether the server counts by token bucket, fixed
// or sliding window: a window of that time, which learns which of them it is. If
// the time is less than a minute, a Retry-After in whole seconds can't tell, and
// it is a bucket with the rate and the burst of [Even]. Set the Name.
func PerTime(n float64, per time.Duration) (l Limit) {
	if per >= time.Minute && n >= 1 && n <= MaxWindow {
		return Limit{Max: int(n), Window: per}
	}
	l.Rate, l.Burst = Even(n, per)
	return l
}

// ParseRate reads a rate such as "50", "50/s", "300/min" or "3000/h" into the
// number and the time it is for. Without a unit it is per second.
func ParseRate(s string) (n float64, per time.Duration, err error) {
	number, unit, _ := strings.Cut(s, "/")
	switch strings.TrimSpace(unit) {
	case "", "s", "sec", "second":
		per = time.Second
	case "m", "min", "minute":
		per = time.Minute
	case "h", "hour":
		per = time.Hour
	case "d", "day":
		per = 24 * time.Hour
	default:
		return 0, 0, fmt.Errorf("%q has the unknown unit %q: write a number and /s, /min, /h or /d, as in 300/min", s, unit)
	}
	n, err = strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !(n > 0) || math.IsInf(n, 0) {
		return 0, 0, fmt.Errorf("%q is not a rate: write a number above 0 and a unit, as in 50/s or 300/min", s)
	}
	return n, per, nil
}

// Validate reports what is wrong with l, naming the field, or nil.
func (l Limit) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("limit %q: %s", l.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case l.Name == "":
		return fmt.Errorf("limit: Name is empty: give the server's name for it, or any other")
	case l.Per < 0 || int(l.Per) >= len(perWords):
		return bad("Per is %v, must be one of %s", l.Per, strings.Join(perWords[:], ", "))
	case l.Match != "" && l.Match[0] != '/':
		return bad("Match is %q, must be a path that begins with /", l.Match)
	case l.Learn < 0 || int(l.Learn) >= len(learningWords):
		return bad("Learn is %d, must be LearnOn or LearnOff", l.Learn)
	case !(l.Ceiling >= 0) || math.IsInf(l.Ceiling, 0):
		return bad("Ceiling is %v, must be a rate above 0 (requests per second), or 0 for none", l.Ceiling)
	case l.Ceiling > 0 && l.Learn == LearnOff:
		return bad("Ceiling is %v, and Learn is off: what is told is never exceeded then", l.Ceiling)
	case l.unknown() && l.Learn == LearnOff:
		return bad("nothing is told and Learn is off: give Rate and Burst, or Max and Window")
	case l.unknown():
	case l.Max == 0 && l.Window == 0:
		if !(l.Rate > 0) || math.IsInf(l.Rate, 0) {
			return bad("Rate is %v, must be a number above 0 (tokens per second)", l.Rate)
		}
		if !(l.Burst >= 1) || math.IsInf(l.Burst, 0) {
			return bad("Burst is %v, must be at least 1", l.Burst)
		}
	case l.Rate != 0 || l.Burst != 0:
		return bad("has both Rate or Burst and Max or Window: a limit is a token bucket or a window")
	case l.Max < 1 || l.Max > MaxWindow:
		return bad("Max is %d, must be from 1 to %d", l.Max, MaxWindow)
	case l.Window <= 0:
		return bad("Window is %v, must be above 0", l.Window)
	}
	return nil
}

// unknown reports whether nothing is told.
func (l Limit) unknown() bool { return l.Rate == 0 && l.Burst == 0 && l.Max == 0 && l.Window == 0 }

func (l Limit) rule() bucket.Rule {
	return bucket.Rule{
		Rate: l.Rate, Burst: l.Burst, Max: l.Max, Window: l.Window,
		Learn: l.Learn == LearnOn, Ceiling: l.Ceiling,
	}
}

// matches reports whether requests to path draw on l.
func (l *Limit) matches(path string) bool {
	pattern := l.Match
	if pattern == "" {
		return true
	}
	for pattern != "" {
		if pattern == "/" {
			return path != "" && path[0] == '/'
		}
		p, moreP := cutSegment(pattern)
		s, moreS := cutSegment(path)
		if p != s && (p != "/*" || len(s) < 2) {
			return false
		}
		pattern, path = moreP, moreS
	}
	return path == ""
}

// cutSegment splits "/a/b" into "/a" and "/b".
func cutSegment(path string) (segment, rest string) {
	if path == "" {
		return "", ""
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[:i+1], path[i+1:]
	}
	return path, ""
}

// template replaces the segments of path that look like an identifier by "*".
func template(path string) string {
	var b strings.Builder
	for path != "" {
		var segment string
		segment, path = cutSegment(path)
		if isIdentifier(segment[1:]) {
			segment = "/*"
		}
		b.WriteString(segment)
	}
	return b.String()
}

// isIdentifier reports whether s is a number or a UUID.
func isIdentifier(s string) bool {
	hex, digits := 0, 0
	for _, c := range []byte(s) {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F':
			hex++
		case c != '-':
			return false
		}
	}
	return digits > 0 && digits == len(s) || digits+hex == 32
}
