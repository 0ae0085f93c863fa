package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/headgate/headgate"
)

// Profile is when calls come on a day, by the clock on the wall.
type Profile struct {
	// Zone is where the clock is, Date which day it is (only its date
	// counts). Nil and zero: not said.
	Zone *time.Location
	Date time.Time
	// PerDay, if above 0, is how many calls the day has: Hours are scaled
	// to it.
	PerDay float64
	// Hours are rates by time of day. They do not overlap. When none
	// applies nobody calls.
	Hours []Hours
	// Batches come at once.
	Batches []Batch
}

// Hours are calls at random instants, PerSecond of them, from From until To.
type Hours struct {
	From, To  Clock
	PerSecond float64
}

// Batch is Count calls at the same instant.
type Batch struct {
	At    Clock
	Count int
}

// Clock is a time of day: the time that a clock shows, since 00:00.
type Clock time.Duration

// ParseClock reads "9", "09:30" or "24:00".
func ParseClock(text string) (Clock, error) {
	hour, minute, given := strings.Cut(strings.TrimSpace(text), ":")
	h, err := strconv.ParseUint(hour, 10, 8)
	m := uint64(0)
	if given && err == nil {
		m, err = strconv.ParseUint(minute, 10, 8)
	}
	if err != nil || m > 59 || h > 24 || h == 24 && m > 0 || len(hour) > 2 || given && len(minute) != 2 {
		return 0, fmt.Errorf("%q is not a time of day: write 9, 09:30 or 24:00", text)
	}
	return Clock(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute), nil
}

// ParseHours reads "09:00-11:00" or "22-6".
func ParseHours(text string) (from, to Clock, err error) {
	a, b, ok := strings.Cut(text, "-")
	if !ok {
		return 0, 0, fmt.Errorf("%q: write from when to when, as in 09:00-11:00", text)
	}
	if from, err = ParseClock(a); err == nil {
		to, err = ParseClock(b)
	}
	if err == nil && from%day == to%day && to-from != day {
		err = fmt.Errorf("%q has no length", text)
	}
	return from, to, err
}

// String writes it as 09:30.
func (c Clock) String() string {
	return fmt.Sprintf("%02d:%02d", time.Duration(c)/time.Hour, time.Duration(c)%time.Hour/time.Minute)
}

const day = Clock(24 * time.Hour)

// Workday returns a day with a peak: peakShare of perDay calls come between from
// and to. Of the others ten times as many come in an hour from 07:00 to 19:00 as
// in one of the night.
func Workday(perDay float64, from, to Clock, peakShare float64) Profile {
	const begins, ends = 7 * day / 24, 19 * day / 24
	peak := Hours{From: from % day, To: to}
	p := Profile{PerDay: perDay}
	cuts := []Clock{0, begins, ends, day, peak.From, to % day}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	outside := 0.0
	for i := range len(cuts) - 1 {
		h := Hours{cuts[i], cuts[i+1], 0.1}
		if peak.covers(h.From) {
			peak.PerSecond += h.seconds() // for now
			continue
		}
		if h.From >= begins && h.From < ends {
			h.PerSecond = 1
		}
		outside += h.PerSecond * h.seconds()
		p.Hours = append(p.Hours, h)
	}
	for i := range p.Hours {
		p.Hours[i].PerSecond *= (1 - peakShare) * perDay / outside
	}
	peak.PerSecond = peakShare * perDay / peak.PerSecond
	p.Hours = append(p.Hours, peak)
	return p
}

// seconds is how long hours that do not go over midnight are.
func (h Hours) seconds() float64 { return time.Duration(h.To - h.From).Seconds() }

// covers reports whether c lies within h, which may go over midnight.
func (h Hours) covers(c Clock) bool {
	if h.From < h.To {
		return h.From <= c && c < h.To
	}
	return c >= h.From || c < h.To%day
}

// Day is a profile on one day of the calendar: with an hour less or more where
// the clocks change.
type Day struct {
	Start, End time.Time
	// N is how many calls are expected.
	N float64

	segments []segment
	batches  []Arrival
}

// segment has an even rate. Times are since the start of the day.
type segment struct {
	from, to  time.Duration
	perSecond float64
}

// On returns the profile on its date in its zone.
func (p *Profile) On() (*Day, error) {
	y, m, d := p.Date.Date()
	t := midnight(y, m, d, p.Zone)
	all := &Day{Start: t, End: midnight(y, m, d+1, p.Zone)}
	if !t.Before(all.End) { // islands that moved over the date line
		return nil, fmt.Errorf("there was no %s in %v", p.Date.Format(time.DateOnly), p.Zone)
	}
	total := 0.0
	for t.Before(all.End) {
		now := clock(t)
		rate, until := p.at(now)
		next := t.Add(time.Duration(until - now))
		// The clock may change before.
		if _, change := t.ZoneBounds(); !change.IsZero() && change.Before(next) {
			next = change
		}
		if next.After(all.End) {
			next = all.End
		}
		if rate > 0 {
			all.segments = append(all.segments, segment{t.Sub(all.Start), next.Sub(all.Start), rate})
			total += rate * next.Sub(t).Seconds()
		}
		t = next
	}
	batches := 0
	for _, b := range p.Batches {
		at := time.Date(y, m, d, 0, int(time.Duration(b.At)/time.Minute), 0, 0, p.Zone)
		all.batches = append(all.batches, Arrival{at.Sub(all.Start), b.Count, Normal})
		batches += b.Count
	}
	slices.SortStableFunc(all.batches, func(a, b Arrival) int { return cmp.Compare(a.At, b.At) })
	if p.PerDay > 0 {
		rest := p.PerDay - float64(batches)
		if rest < 0 {
			return nil, fmt.Errorf("the batches have %d calls, the day %v", batches, p.PerDay)
		}
		if rest > 0 && total == 0 {
			return nil, errors.New("no hours have a rate above 0")
		}
		for i := range all.segments {
			all.segments[i].perSecond *= rest / total
		}
		total = rest
	}
	all.N = total + float64(batches)
	if all.N > maxCalls {
		return nil, fmt.Errorf("%.0f calls a day are more than %d", all.N, maxCalls)
	}
	return all, nil
}

// midnight returns the first instant of a date, which is not 00:00 where the
// clocks are put forward at midnight.
func midnight(y int, m time.Month, d int, zone *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, zone)
	if want := time.Date(y, m, d, 12, 0, 0, 0, zone).Day(); t.Day() != want {
		_, t = t.ZoneBounds()
	}
	return t
}

// clock returns what the clock on the wall shows.
func clock(t time.Time) Clock {
	h, m, s := t.Clock()
	return Clock(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(t.Nanosecond()))
}

// at returns the rate at c, and until when it holds.
func (p *Profile) at(c Clock) (perSecond float64, until Clock) {
	until = day
	for _, h := range p.Hours {
		if h.covers(c) {
			perSecond = h.PerSecond
		}
		for _, edge := range []Clock{h.From, h.To} {
			if edge > c {
				until = min(until, edge)
			}
		}
	}
	return perSecond, until
}

// Source returns calls at random: a Poisson process, the same one for the same
// seed.
func (d *Day) Source(seed uint64) Source {
	rng := rand.New(rand.NewPCG(seed, 0xa0761d6478bd642f))
	segments, batches := d.segments, d.batches
	at := time.Duration(-1) // the next call's; below 0 is not drawn yet
	return func() (Arrival, bool) {
		for at < 0 && len(segments) > 0 {
			at = segments[0].from
			if at += time.Duration(rng.ExpFloat64() / segments[0].perSecond * 1e9); at >= segments[0].to || at < 0 {
				at, segments = -1, segments[1:]
			}
		}
		if len(batches) > 0 && (at < 0 || batches[0].At <= at) {
			b := batches[0]
			batches = batches[1:]
			return b, true
		}
		if at < 0 {
			return Arrival{}, false
		}
		a := Arrival{at, 1, Normal}
		// What follows within the segment: the process has no memory.
		if at += time.Duration(rng.ExpFloat64() / segments[0].perSecond * 1e9); at >= segments[0].to || at < a.At {
			at, segments = -1, segments[1:]
		}
		return a, true
	}
}

// Peak returns the highest rate, in calls a second, and when it begins.
func (d *Day) Peak() (perSecond float64, at time.Duration) {
	for _, s := range d.segments {
		if s.perSecond > perSecond {
			perSecond, at = s.perSecond, s.from
		}
	}
	return perSecond, at
}

// ReadProfile reads a profile as YAML. An error begins with name and the line.
func ReadProfile(name string, text []byte) (Profile, error) {
	r := profileReader{name: name}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		line := 1
		if e := yaml.Error(nil); errors.As(err, &e) && e.GetToken() != nil {
			line = e.GetToken().Position.Line
			err = errors.New(e.GetMessage())
		}
		return r.p, fmt.Errorf("%s:%d: %w", name, line, err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if err := r.each(doc.Body, "a profile", r.field); err != nil {
			return r.p, err
		}
	}
	if len(r.p.Hours) == 0 && len(r.p.Batches) == 0 {
		return r.p, fmt.Errorf("%s:1: neither hours nor batches: takes hours, with lines such as 09:00-11:00: 20/s", name)
	}
	return r.p, nil
}

type profileReader struct {
	name string
	p    Profile
	seen []string
}

func (r *profileReader) bad(n ast.Node, format string, args ...any) error {
	line := 1
	if t := n.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	return fmt.Errorf("%s:%d: %w", r.name, line, fmt.Errorf(format, args...))
}

// each calls f with each key and value of a mapping, which is called what.
func (r *profileReader) each(n ast.Node, what string, f func(key string, k, value ast.Node) error) error {
	values, ok := n.(ast.MapNode)
	if !ok {
		return r.bad(n, "%s takes lines such as %s", what, map[bool]string{true: "time_zone: Europe/Paris", false: "09:00-11:00: 20/s"}[what == "a profile"])
	}
	for it := values.MapRange(); it.Next(); {
		k := it.Key()
		if err := f(k.GetToken().Value, k, it.Value()); err != nil {
			return err
		}
	}
	return nil
}

// scalar returns the text of a value.
func (r *profileReader) scalar(field string, n ast.Node) (string, error) {
	s, ok := n.(ast.ScalarNode)
	if !ok || n.Type() == ast.NullType {
		return "", r.bad(n, "%s takes one value", field)
	}
	return s.GetToken().Value, nil
}

func (r *profileReader) field(field string, k, value ast.Node) error {
	if slices.Contains(r.seen, field) {
		return r.bad(k, "%s is there twice", field)
	}
	r.seen = append(r.seen, field)
	switch field {
	case "hours":
		return r.each(value, field, r.hours)
	case "batches":
		return r.each(value, field, r.batch)
	case "time_zone", "date", "per_day":
	default:
		return r.bad(k, "unknown word %q; there are time_zone, date, per_day, hours, batches", field)
	}
	text, err := r.scalar(field, value)
	if err != nil {
		return err
	}
	switch field {
	case "time_zone":
		r.p.Zone, err = ParseZone(text)
	case "date":
		r.p.Date, err = ParseDate(text)
	default:
		r.p.PerDay, err = ParsePerDay(text)
	}
	if err != nil {
		return r.bad(value, "%s: %w", field, err)
	}
	return nil
}

func (r *profileReader) hours(span string, k, value ast.Node) error {
	field := "hours"
	from, to, err := ParseHours(span)
	if err != nil {
		return r.bad(k, "%s: %w", field, err)
	}
	h := Hours{From: from % day, To: to}
	for _, other := range r.p.Hours {
		if other.covers(h.From) || h.covers(other.From) {
			return r.bad(k, "%s: %s overlaps with %v-%v", field, span, other.From, other.To)
		}
	}
	field += " " + span
	text, err := r.scalar(field, value)
	if err != nil {
		return err
	}
	if text != "0" {
		n, per, err := headgate.ParseRate(text)
		if err == nil && n/per.Seconds() > 1e6 {
			err = fmt.Errorf("%q is more than a million a second", text)
		}
		if err != nil {
			return r.bad(value, "%s: %w", field, err)
		}
		h.PerSecond = n / per.Seconds()
	}
	r.p.Hours = append(r.p.Hours, h)
	return nil
}

func (r *profileReader) batch(at string, k, value ast.Node) error {
	c, err := ParseClock(at)
	if err != nil {
		return r.bad(k, "batches: %w", err)
	}
	if c == day {
		return r.bad(k, "batches: 24:00 is the next day")
	}
	field := "batches " + at
	text, err := r.scalar(field, value)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > maxCalls {
		return r.bad(value, "%s: %q is not a number of calls: takes a whole number from 1 to %d", field, text, maxCalls)
	}
	r.p.Batches = append(r.p.Batches, Batch{c, int(n)})
	return nil
}

// ParseZone reads a name such as Europe/Paris.
func ParseZone(text string) (*time.Location, error) {
	zone, err := time.LoadLocation(text)
	if err != nil || text == "" || text == "Local" { // a run must not depend on the machine
		return nil, fmt.Errorf("%q is not a time zone: write a name such as Europe/Paris, America/New_York or UTC", text)
	}
	return zone, nil
}

// ParseDate reads a date such as 2026-01-15.
func ParseDate(text string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil || t.Year() < 1970 || t.Year() > 2200 {
		return t, fmt.Errorf("%q is not a date: write 2026-01-15", text)
	}
	return t, nil
}

// ParsePerDay reads a number of calls a day.
func ParsePerDay(text string) (float64, error) {
	n, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	if err != nil || !(n >= 1 && n <= maxCalls) || n != math.Trunc(n) {
		return 0, fmt.Errorf("%q is not a number of calls: takes a whole number from 1 to %d", text, maxCalls)
	}
	return n, nil
}
