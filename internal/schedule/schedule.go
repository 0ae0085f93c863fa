// Package schedule says whether a clock on a wall shows one of the hours that
// somebody wrote down, such as Mon-Fri 09:00-12:00 in Europe/Paris, and when that
// changes. It takes the time and never asks for it.
//
// What counts is what the clock shows. Hours that it skips when it is put forward
// are not there on that day: 02:00-03:00 does not come, and 01:30-02:30 ends at
// once when it jumps from 02:00 to 03:00. Hours that it shows twice when it is put
// back are there twice: 02:00-02:30 comes, goes, and comes again.
package schedule

import (
	"time"
)

// Schedule is a set of hours of the week in a time zone. It is never changed, and
// safe for concurrent use. The zero value has no hours.
type Schedule struct {
	zone  *time.Location
	spans []Span
}

// Span is the same hours on some days of the week.
type Span struct {
	days     [7]bool // of its beginning, by time.Weekday
	from, to clock   // to is at most from if the span ends on the day after
}

// clock is what a clock shows, since 00:00.
type clock time.Duration

const day = clock(24 * time.Hour)

// New returns a schedule of spans. Where they overlap it is as if they were one.
func New(zone *time.Location, spans ...Span) Schedule { return Schedule{zone, spans} }

// Parse reads the hours of a schedule, each as [ParseSpan] does.
func Parse(zone *time.Location, hours ...string) (Schedule, error) {
	s := Schedule{zone: zone}
	for _, text := range hours {
		span, err := ParseSpan(text)
		if err != nil {
			return Schedule{}, err
		}
		s.spans = append(s.spans, span)
	}
	return s, nil
}

// Zone is where the clock hangs. It is nil for the zero value.
func (s Schedule) Zone() *time.Location { return s.zone }

// Spans returns the hours. The slice must not be changed.
func (s Schedule) Spans() []Span { return s.spans }

// horizon is longer than a schedule can go without a change if it has any: a
// week, a second one if the clock is put forward over the only hour, and some
// days for calendars that skip one.
const horizon = 22 * 24 * time.Hour

// At reports whether t is within the hours, and when that changes next. until is
// zero if it never does.
func (s Schedule) At(t time.Time) (active bool, until time.Time) {
	if len(s.spans) == 0 {
		return false, time.Time{}
	}
	local := t.In(s.zone)
	active = s.shows(local)
	for next := local; next.Sub(local) < horizon; {
		next = s.edge(next)
		if s.shows(next) != active {
			return active, next
		}
	}
	return active, time.Time{}
}

// edge returns the first instant after t at which the schedule could change: the
// next time that begins or ends a span, midnight, or the next change of the clock.
func (s Schedule) edge(t time.Time) time.Time {
	now := reading(t)
	first := day
	for _, span := range s.spans {
		for _, c := range [...]clock{span.from, span.to} {
			if c > now {
				first = min(first, c)
			}
		}
	}
	next := t.Add(time.Duration(first - now))
	if _, change := t.ZoneBounds(); !change.IsZero() && change.Before(next) {
		return change
	}
	return next
}

// shows reports whether the clock shows one of the hours at t, which is in the
// zone.
func (s Schedule) shows(t time.Time) bool {
	now, today := reading(t), t.Weekday()
	for _, span := range s.spans {
		if span.covers(today, now) {
			return true
		}
	}
	return false
}

func (s Span) covers(today time.Weekday, now clock) bool {
	if s.from < s.to {
		return s.days[today] && s.from <= now && now < s.to
	}
	yesterday := (today + 6) % 7
	return s.days[today] && now >= s.from || s.days[yesterday] && now < s.to
}

// reading is what the clock shows at t.
func reading(t time.Time) clock {
	h, m, s := t.Clock()
	return clock(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(t.Nanosecond()))
}
