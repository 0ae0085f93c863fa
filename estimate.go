package headgate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// Algorithm is how a server counts.
type Algorithm int

const (
	// UnknownAlgorithm: nothing has told yet.
	UnknownAlgorithm Algorithm = iota
	// TokenBucket refills continuously.
	TokenBucket
	// Window is a window of which it is not known whether it is fixed.
	Window
	// FixedWindow opens at the first request and closes when it is over.
	FixedWindow
	// SlidingWindow looks back from each request.
	SlidingWindow
)

var algorithmWords = []string{"not yet known", "token bucket", "window", "fixed window", "sliding window"}

// String returns the algorithm in words.
func (a Algorithm) String() string {
	if a < 0 || int(a) >= len(algorithmWords) {
		return "Algorithm(" + strconv.Itoa(int(a)) + ")"
	}
	return algorithmWords[a]
}

// MarshalText returns the words.
func (a Algorithm) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the words.
func (a *Algorithm) UnmarshalText(text []byte) error { return fromWord(a, algorithmWords, text) }

// Estimate is what a limiter believes of one limit, and how surely: from 0, a
// guess, to 1.
type Estimate struct {
	// Limit and what follows say which bucket.
	Limit                    string
	Org, Client, Token, Path string
	// Templates are the paths that draw on it, if a refusal brought it to
	// light; "*" stands for an identifier.
	Templates []string

	Algorithm     Algorithm
	AlgorithmSure float64
	// Rate is what the limit leaves to this limiter, in requests a second;
	// 0 if nothing is known of it.
	Rate, RateSure float64
	// Burst is what the full bucket holds, or how many requests fit into
	// the Window; 0 if that is not known.
	Burst, BurstSure float64
	Window           time.Duration
	// Level is how many requests could go now. Pace is at how many a second
	// they are sent; 0 where it is not a rate that holds them back.
	Level, Pace float64
	// Others is how many requests a second somebody else makes from this
	// limit: what it says it is, or else what was told, less Rate. It may
	// as well be lower than that.
	Others float64
	// Waiting is how many stand in line for it, RetryAfter for how long the
	// server has asked to stay away.
	Waiting    int
	RetryAfter time.Duration
	// Sent is how many permits were taken from it and not returned,
	// Accepted how many of them were answered and not refused by a limit,
	// Refused how many refusals named it. They count since its bucket was
	// made, which one that was unused for long may be anew.
	Sent, Accepted, Refused uint64
	// Learning is what its learner is at: off, ramp, trust, search, track,
	// contend or window. See docs/learning.md.
	Learning string
}

// Estimates returns what is believed of each limit that was drawn on, by name.
func (l *Limiter) Estimates() []Estimate {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var list []Estimate
	for key, a := range l.accounts {
		b := a.bucket.Estimate(now)
		e := Estimate{
			Limit: a.name, Org: key.org, Client: key.client, Token: key.token, Path: key.path,
			Algorithm: Algorithm(b.Algorithm), AlgorithmSure: b.AlgorithmSure,
			Rate: b.Rate, RateSure: b.RateSure, Burst: b.Burst, BurstSure: b.BurstSure,
			Window: b.Window, Level: b.Level, Pace: b.Pace, Learning: b.Learning,
			Others: a.others(b), Waiting: upTo(a.waiting, priorities-1),
			Sent: a.sent, Accepted: a.accepted, Refused: a.refused,
		}
		if a.limit != implicit {
			e.Templates = slices.Clone(l.templates(a.limit))
		}
		if gate, closed := a.bucket.Gate(now); closed {
			e.RetryAfter = gate - now
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Estimate) int {
		return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Org, b.Org), cmp.Compare(a.Client, b.Client),
			cmp.Compare(a.Token, b.Token), cmp.Compare(a.Path, b.Path))
	})
	return list
}

// others estimates what somebody else takes, once the rate that is left was
// measured.
func (a *account) others(e bucket.Estimate) float64 {
	all := cmp.Or(a.claimed, a.told)
	if e.Learning != "track" && e.Learning != "contend" || e.RateSure < 0.5 || e.Rate > 0.95*all {
		return 0
	}
	return all - e.Rate
}

// String says it in words:
//
//	token.rate.per.minute: token bucket, 32.1/s and a burst of about 98 (97 % sure); about 18/s of this limit are used by somebody else
func (e Estimate) String() string {
	var b strings.Builder
	b.WriteString(e.Limit + ": " + e.Algorithm.String())
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }
	switch {
	case e.Window > 0:
		b.WriteString(", " + number(e.Burst) + " in " + e.Window.String())
	case e.Rate > 0:
		b.WriteString(", " + number(e.Rate) + "/s")
		if e.Burst > 0 {
			b.WriteString(" and a burst of about " + number(e.Burst))
		}
	}
	if e.Rate > 0 && e.Learning != "off" {
		b.WriteString(" (" + strconv.Itoa(int(100*e.RateSure)) + " % sure)")
	}
	if e.Others > 0 {
		b.WriteString("; about " + number(e.Others) + "/s of this limit are used by somebody else, or it is lower than it says")
	}
	return b.String()
}
