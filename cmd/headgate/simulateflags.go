package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/simulate"
)

// perDay is a number of calls.
type perDay float64

func (n *perDay) String() string { return number(float64(*n)) }

// Type is what the help calls it.
func (*perDay) Type() string { return "N" }

// Set reads "200000" or "200_000".
func (n *perDay) Set(text string) error {
	v, err := simulate.ParsePerDay(text)
	*n = perDay(v)
	return err
}

// hours are from when to when on the clock.
type hours struct {
	from, to simulate.Clock
	text     string
}

func (h *hours) String() string { return h.text }

// Type is what the help calls it.
func (*hours) Type() string { return "FROM-TO" }

// Set reads "09:00-11:00".
func (h *hours) Set(text string) (err error) {
	h.from, h.to, err = simulate.ParseHours(text)
	h.text = text
	return err
}

// zoneName is a time zone.
type zoneName struct{ location *time.Location }

func (z *zoneName) String() string {
	if z.location == nil {
		return ""
	}
	return z.location.String()
}

// Type is what the help calls it.
func (*zoneName) Type() string { return "ZONE" }

// Set reads "Europe/Paris".
func (z *zoneName) Set(text string) (err error) {
	z.location, err = simulate.ParseZone(text)
	return err
}

// dayOfYear is a date.
type dayOfYear struct{ time.Time }

func (d *dayOfYear) String() string { return d.Format(time.DateOnly) }

// Type is what the help calls it.
func (*dayOfYear) Type() string { return "DATE" }

// Set reads "2026-01-15".
func (d *dayOfYear) Set(text string) (err error) {
	d.Time, err = simulate.ParseDate(text)
	return err
}

// choice is one of some words.
type choice[T any] struct {
	text  string
	words map[string]T
	value T
}

func (c *choice[T]) String() string { return c.text }

// Type is what the help calls it.
func (*choice[T]) Type() string { return "FORM" }

// Set reads one of the words.
func (c *choice[T]) Set(text string) error {
	v, ok := c.words[text]
	if !ok {
		return fmt.Errorf("%q is none of %s", text, strings.Join(slices.Sorted(maps.Keys(c.words)), ", "))
	}
	c.text, c.value = text, v
	return nil
}

// specs are the values of a flag that may be given several times. The first
// value that is given replaces the default.
type specs[T any] struct {
	list  []T
	text  []string
	given bool
}

func (s *specs[T]) String() string { return strings.Join(s.text, " ") }
func (*specs[T]) repeatable()      {}

func (s *specs[T]) add(text string, v T) {
	if !s.given {
		s.list, s.text, s.given = nil, nil, true
	}
	s.list, s.text = append(s.list, v), append(s.text, text)
}

// limitSpec is a limit as it was given.
type limitSpec struct {
	limit simulate.ScenarioLimit
	text  string
}

type limitSpecs struct{ specs[limitSpec] }

// Type is what the help calls it.
func (*limitSpecs) Type() string { return "LIMIT" }

// Set reads "50/s,burst=100".
func (s *limitSpecs) Set(text string) error {
	rate, options, _ := strings.Cut(text, ",")
	n, per, err := headgate.ParseRate(rate)
	if err != nil {
		return err
	}
	l := simulate.ScenarioLimit{Name: rate}
	l.Rate = n / per.Seconds()
	counts := "token"
	algorithm := choice[simulate.Algorithm]{words: map[string]simulate.Algorithm{"bucket": simulate.Bucket, "fixed": simulate.Fixed, "sliding": simulate.Sliding}}
	err = parseOptions(options, map[string]any{
		"burst": &l.Burst, "algorithm": optionOf(&algorithm), "phase": &l.Phase, "per": &counts, "name": &l.Name,
	})
	if err != nil {
		return err
	}
	burstGiven := strings.Contains(options, "burst=")
	l.Algorithm = algorithm.value
	l.Shared = counts == "org"
	switch {
	case counts != "token" && counts != "client" && counts != "org":
		return fmt.Errorf("option per: %q is none of token, client, org", counts)
	case !(l.Rate >= 1e-5 && l.Rate <= 1e6):
		return errors.New("takes a rate of up to a million a second")
	case l.Algorithm != simulate.Bucket && burstGiven:
		return errors.New("option burst: a window has none")
	case l.Phase != 0 && l.Algorithm != simulate.Fixed, l.Phase < 0, l.Phase > 0 && l.Phase >= per:
		return errors.New("option phase: takes a time below the window of a fixed one")
	case l.Algorithm != simulate.Bucket:
		l.Rate, l.Max, l.Window = 0, int(n), per
		if float64(l.Max) != n || l.Max > headgate.MaxWindow {
			return fmt.Errorf("a window takes a whole number of requests up to %d", headgate.MaxWindow)
		}
	case !burstGiven:
		l.Burst = max(1, l.Rate)
	case !(l.Burst >= 1 && l.Burst <= 1e9):
		return errors.New("option burst: takes a number of at least 1")
	}
	if slices.ContainsFunc(s.list, func(o limitSpec) bool { return s.given && o.limit.Name == l.Name }) {
		return fmt.Errorf("two limits are called %s: give one of them a name=", l.Name)
	}
	s.add(text, limitSpec{l, text})
	return nil
}

// option reads a flag's value as an option of another.
type option struct{ set func(string) error }

func (o option) UnmarshalText(text []byte) error { return o.set(string(text)) }

func optionOf(v interface{ Set(string) error }) option { return option{v.Set} }

// moment is a time of day, or a time since the start.
type moment struct {
	ofDay bool
	clock simulate.Clock
	since time.Duration
}

// Set reads "9:00", or "90m".
func (m *moment) Set(text string) (err error) {
	if strings.Contains(text, ":") {
		m.ofDay = true
		m.clock, err = simulate.ParseClock(text)
		return err
	}
	var d span
	if err := d.Set(text); err != nil {
		return fmt.Errorf("%q: takes a time of day such as 9:00, or a time since the start such as 90m", text)
	}
	m.since = time.Duration(d)
	return nil
}

// between returns from when to when that is after start. To 0 is for ever.
func between(from, to moment, start time.Time) (f, t time.Duration, err error) {
	if (from.ofDay || to.ofDay) && start.Year() <= 1 {
		return 0, 0, errors.New("has a time of day, and the calls have none: write the time since the start, such as 90m")
	}
	on := func(m moment) time.Duration {
		if !m.ofDay {
			return m.since
		}
		y, mo, d := start.Date()
		return time.Date(y, mo, d, 0, int(time.Duration(m.clock)/time.Minute), 0, 0, start.Location()).Sub(start)
	}
	f, t = on(from), on(to)
	if to == (moment{}) {
		return max(0, f), 0, nil
	}
	if t <= f && to.ofDay { // over midnight
		t += 24 * time.Hour
	}
	if t <= 0 && from.ofDay { // on the next day
		f, t = f+24*time.Hour, t+24*time.Hour
	}
	if t <= f {
		return 0, 0, errors.New("ends before it begins")
	}
	return max(0, f), t, nil
}

// otherSpec is traffic of others as it was given.
type otherSpec struct {
	text     string
	rate     float64 // a second; or a share of the limit
	share    bool
	from, to moment
	on, off  time.Duration
	even     bool
	limit    string
}

type otherSpecs struct{ specs[otherSpec] }

// Type is what the help calls it.
func (*otherSpecs) Type() string { return "OTHERS" }

// Set reads "20/s,on=10m,off=20m".
func (s *otherSpecs) Set(text string) error {
	rate, options, _ := strings.Cut(text, ",")
	o := otherSpec{text: text}
	if percent, ok := strings.CutSuffix(rate, "%"); ok {
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(p > 0 && p <= 1000) {
			return fmt.Errorf("%q is not a share: write 30%%", rate)
		}
		o.rate, o.share = p/100, true
	} else {
		n, per, err := headgate.ParseRate(rate)
		if err != nil {
			return err
		}
		o.rate = n / per.Seconds()
	}
	err := parseOptions(options, map[string]any{
		"from": optionOf(&o.from), "to": optionOf(&o.to), "on": &o.on, "off": &o.off, "even": &o.even, "limit": &o.limit,
	})
	switch {
	case err != nil:
		return err
	case (o.on > 0) != (o.off > 0) || o.on < 0 || o.off < 0:
		return errors.New("options on and off go together, as in on=10m,off=20m")
	case o.rate > 1e5:
		return errors.New("takes at most 100000 a second")
	}
	s.add(text, o)
	return nil
}

// traffic returns it as the engine has it.
func (o *otherSpec) traffic(l *simulate.ScenarioLimit, start time.Time) (t simulate.Traffic, err error) {
	t = simulate.Traffic{PerSecond: o.rate, Poisson: !o.even, On: o.on, Off: o.off}
	if o.share && l.Algorithm == simulate.Bucket {
		t.PerSecond *= l.Rate
	} else if o.share {
		t.PerSecond *= float64(l.Max) / l.Window.Seconds()
	}
	t.From, t.To, err = between(o.from, o.to, start)
	return t, err
}

// outageSpec is an outage as it was given.
type outageSpec struct {
	text     string
	from, to moment
}

type outageSpecs struct{ specs[outageSpec] }

// Type is what the help calls it.
func (*outageSpecs) Type() string { return "FROM-TO" }

// Set reads "10:00-10:05", or "90m-95m".
func (s *outageSpecs) Set(text string) error {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		return errors.New("takes from when to when, such as 10:00-10:05")
	}
	o := outageSpec{text: text}
	if err := cmp.Or(o.from.Set(from), o.to.Set(to)); err != nil {
		return err
	}
	s.add(text, o)
	return nil
}

type toldSpecs struct{ specs[simulate.Told] }

// Type is what the help calls it.
func (*toldSpecs) Type() string { return "TOLD" }

// Set reads "known", "learn", "hidden" or a limit.
func (s *toldSpecs) Set(text string) error {
	switch text {
	case "known":
		s.add(text, simulate.Told{})
		return nil
	case "learn":
		s.add(text, simulate.Told{How: simulate.Unknown})
		return nil
	case "hidden":
		s.add(text, simulate.Told{How: simulate.Hidden})
		return nil
	}
	var l limitSpecs
	if err := l.Set(text); err != nil {
		return fmt.Errorf("takes known, learn, hidden or a limit such as 40/s,burst=80: %w", err)
	}
	limit := l.list[0].limit
	told := simulate.Told{How: simulate.Wrong}
	switch {
	case limit.Algorithm == simulate.Bucket && !strings.Contains(text, "burst="):
		n, per, _ := headgate.ParseRate(limit.Name)
		told.Rule = simulate.Even(n, per) // as headgate run does
	default:
		told.Rule.Rate, told.Rule.Burst, told.Rule.Max, told.Rule.Window = limit.Rate, limit.Burst, limit.Max, limit.Window
	}
	s.add(text, told)
	return nil
}

type policySpecs struct{ specs[simulate.Way] }

func (s *policySpecs) String() string { return strings.Join(s.text, ",") }

// Type is what the help calls it.
func (*policySpecs) Type() string { return "POLICIES" }

// Set reads "headgate,loop".
func (s *policySpecs) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		ways := simulate.Ways()
		i := slices.IndexFunc(ways, func(w simulate.Way) bool { return w.Word == word })
		if i < 0 {
			return fmt.Errorf("%q is none of best, headgate, learn, off, loop", word)
		}
		if s.given && slices.Contains(s.text, word) {
			return fmt.Errorf("%q is there twice", word)
		}
		s.add(word, ways[i])
	}
	return nil
}

type whatIfSpecs struct{ specs[*simulate.WhatIf] }

// Type is what the help calls it.
func (*whatIfSpecs) Type() string { return "CHANGE" }

// Set reads "credentials=2", or "none".
func (s *whatIfSpecs) Set(text string) error {
	if text == "none" {
		s.list, s.text, s.given = nil, nil, true
		return nil
	}
	w, err := simulate.ParseWhatIf(text)
	if err != nil {
		return err
	}
	s.add(text, w)
	return nil
}
